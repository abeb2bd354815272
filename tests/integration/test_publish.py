"""A fleet is published to a real Consul, rolled out, changed, refused and removed. The shim is a stand-in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from publishing import HOST, TWO, an_agent, documents, order, wait_until_healthy
from stand_in import StandIn

from integration.conftest import ConsulServer
from outrider.errors import ConsulConflict, ConsulUnreachable, FleetError, Locked, RolloutFailed
from outrider.migration.compile import Definition
from outrider.migration.driver import Driver
from outrider.migration.overview import overview
from outrider.migration.publication import Order, Target, predict, publish
from outrider.registry.kv import Change, get_doc, list_docs, put_docs
from outrider.registry.layout import FLEET, HOSTS, PLACEMENT, PUBLISHED, RUN_LOCK, AgentDoc, HostDoc, PlacementDoc
from outrider.registry.lock import RunLock
from outrider.registry.published import Published, publication_went_through

pytestmark = pytest.mark.integration


@pytest.fixture
def consul(shared_consul: ConsulServer) -> ConsulServer:
    """One server for all tests of this module."""
    return shared_consul


@pytest.fixture
def target(consul: ConsulServer) -> Iterator[Target]:
    """The server, empty before each test."""
    yield Target(consul_port=consul.ports["http"])
    consul.client.delete("/v1/kv/outrider/", params={"recurse": ""})


@pytest.fixture
def host(consul: ConsulServer, target: Target) -> Iterator[StandIn]:
    """The shim's stand-in on the only host; it takes everything down once the documents are gone."""
    stand_in = StandIn(consul.client, "local")
    with stand_in.running():
        yield stand_in
        consul.client.delete("/v1/kv/outrider/", params={"recurse": ""})
        deadline = time.monotonic() + 5
        while stand_in.placed() and time.monotonic() < deadline:
            time.sleep(0.02)


def test_a_new_fleet_is_published_and_found_well(target: Target, host: StandIn) -> None:
    result = publish(target, order(TWO))
    assert result.changed
    assert (result.agents.added, result.agents.unchanged) == (2, 0)
    found = overview(target)
    assert found.healthy
    assert {agent.name: agent.passing for agent in found.agents} == {"a": 2, "b": 1}


def test_the_second_run_changes_nothing(target: Target, host: StandIn, consul: ConsulServer) -> None:
    publish(target, order(TWO))
    started = len(host.events)
    with RunLock(consul.client, RUN_LOCK, "somebody"):  # what changes nothing needs no lock
        result = publish(target, order(TWO))
    assert not result.changed
    assert result.agents.unchanged == 2
    assert result.diff == []
    assert len(host.events) == started


def number(consul: ConsulServer) -> int:
    """Of the last publication that went through; 0 if none did."""
    doc, _ = get_doc(consul.client, PUBLISHED, Published)
    return doc.number if doc else 0


def test_only_a_publication_that_went_through_says_that_all_is_there(
    target: Target, host: StandIn, consul: ConsulServer
) -> None:
    broken = {**TWO, "b": an_agent(environment={"BROKEN": "1"})}
    with pytest.raises(RolloutFailed):
        publish(target, order(broken, wait_s=1.5))
    assert number(consul) == 0
    publish(target, order(TWO))
    first = number(consul)
    assert first > time.time() * 1000 - 60_000
    publish(target, order(TWO))
    assert number(consul) == first
    publish(target, order({"a": TWO["a"]}))
    assert number(consul) > first
    put_docs(consul.client, [Change(PUBLISHED, Published(2**50), None)])
    publish(target, Order(state="absent"))
    assert number(consul) == 2**50 + 1


def test_a_number_that_consul_lost_is_written_though_nothing_else_changed(
    target: Target, host: StandIn, consul: ConsulServer
) -> None:
    publish(target, order(TWO, prune=False))
    assert number(consul) == 0  # who removes nothing does not know what else was there
    assert not publish(target, order(TWO)).changed
    first = number(consul)
    assert first
    publish(target, order({**TWO, "c": an_agent()}, prune=False))
    assert number(consul) > first


def test_a_consul_that_was_wiped_a_moment_ago_is_not_called_whole(target: Target, consul: ConsulServer) -> None:
    with RunLock(consul.client, RUN_LOCK, "test") as lock:
        publication_went_through(consul.client, lock.guard)
        consul.client.delete("/v1/kv/outrider/", params={"recurse": ""})
        with pytest.raises(ConsulConflict):
            publication_went_through(consul.client, lock.guard)
    assert number(consul) == 0


def test_what_the_inventory_says_of_a_host_is_published_once_and_what_operators_say_of_it_stays(
    target: Target, host: StandIn, consul: ConsulServer
) -> None:
    assert publish(target, order(TWO)).operations[0] == "describe host local"
    key = f"{HOSTS}local"
    doc, index = get_doc(consul.client, key, HostDoc)
    assert doc == HostDoc(HOST)
    drained = HostDoc(HOST, "drained", "a new disk", 5.0)
    put_docs(consul.client, [Change(key, drained, index)])
    assert not publish(target, order(TWO)).changed
    with pytest.raises(FleetError, match="c-1 cannot be placed: local: is drained: a new disk"):
        publish(target, order({**TWO, "c": an_agent()}))
    larger = msgspec.structs.replace(HOST, cpu=8.0)
    result = publish(target, msgspec.structs.replace(order(TWO), hosts=[msgspec.to_builtins(larger)]))
    assert (result.changed, result.operations) == (True, ["describe host local"])
    assert get_doc(consul.client, key, HostDoc)[0] == msgspec.structs.replace(drained, host=larger)
    publish(target, Order(state="absent"))
    assert get_doc(consul.client, key, HostDoc)[0] is None


def test_prediction_writes_nothing(target: Target, consul: ConsulServer) -> None:
    result = predict(target, order(TWO))
    assert result.changed
    assert [shown.before for shown in result.diff] == ["", "", ""]
    assert list_docs(consul.client, FLEET, AgentDoc).docs == {}


def test_without_consul_a_prediction_warns_and_a_publication_fails() -> None:
    nowhere = Target(consul_port=1)
    assert "nothing were published yet" in predict(nowhere, order(TWO)).warnings[0]
    with pytest.raises(ConsulUnreachable, match=r"http://127\.0\.0\.1:1 does not answer"):
        publish(nowhere, order(TWO))


def test_a_change_restarts_only_what_it_concerns_one_instance_at_a_time(target: Target, host: StandIn) -> None:
    publish(target, order(TWO))
    host.events.clear()
    result = publish(target, order({**TWO, "a": an_agent(count=2, environment={"X": "1"})}))
    assert result.agents.changed == 1
    assert result.restarted == ["a-1", "a-2"]
    assert host.of("started") == ["a-1", "a-2"]
    assert host.most_down == 1


def test_needs_are_rolled_out_first(target: Target, host: StandIn) -> None:
    publish(target, order(TWO))
    host.events.clear()
    publish(target, order({name: msgspec.structs.replace(TWO[name], args=("x",)) for name in TWO}))
    assert host.of("started") == ["a-1", "a-2", "b-1"]


def test_a_description_restarts_nothing(target: Target, host: StandIn, consul: ConsulServer) -> None:
    publish(target, order(TWO))
    host.events.clear()
    result = publish(target, order({**TWO, "b": an_agent(needs=["a"], tags=["new"])}))
    assert (result.agents.changed, result.restarted, host.of("started")) == (1, [], [])
    doc, _ = get_doc(consul.client, FLEET + "b", AgentDoc)
    assert doc
    assert doc.agent.tags == ("new",)


def test_a_release_that_does_not_start_is_put_back_and_the_rest_untouched(
    target: Target, host: StandIn, consul: ConsulServer
) -> None:
    publish(target, order(TWO))
    before = documents(consul)
    changed = {"a": an_agent(count=2, environment={"BROKEN": "1"}), "b": an_agent(needs=["a"], args=["x"])}
    with pytest.raises(RolloutFailed) as failure:
        publish(target, order(changed, wait_s=1.5))
    assert "a-1 on local is not well: exited: status 3; a was put back as it was" in failure.value.message
    assert "outrider logs a-1" in failure.value.hint
    assert failure.value.not_done == ["b"]
    assert documents(consul) == before
    assert "a-2" not in host.of("started")[3:]
    wait_until_healthy(target)


def test_a_new_agent_that_does_not_start_is_removed_again(target: Target, host: StandIn, consul: ConsulServer) -> None:
    with pytest.raises(RolloutFailed, match="b-1 on local is not well: exited: status 3; b was removed again"):
        publish(target, order({**TWO, "b": an_agent(environment={"BROKEN": "1"})}, wait_s=1.5))
    assert list(list_docs(consul.client, FLEET, AgentDoc).docs) == ["a"]
    assert list(list_docs(consul.client, PLACEMENT, PlacementDoc).docs) == ["a"]


def test_an_agent_that_is_gone_is_drained_before_its_documents_go(target: Target, host: StandIn) -> None:
    publish(target, order(TWO))
    host.events.clear()
    result = publish(target, order({"a": TWO["a"]}))
    assert result.agents.removed == 1
    assert [(event.what, event.instance) for event in host.events] == [("stopped", "b-1"), ("ended", "b-1")]


def test_without_prune_it_stays(target: Target, host: StandIn) -> None:
    publish(target, order(TWO))
    assert not publish(target, order({"a": TWO["a"]}, prune=False)).changed


def test_absent_removes_everything(target: Target, host: StandIn, consul: ConsulServer) -> None:
    publish(target, order(TWO))
    result = publish(target, Order(state="absent"))
    assert result.agents.removed == 2
    assert documents(consul) == {}
    assert host.placed() == set()
    assert not publish(target, Order(state="absent")).changed


def test_more_and_fewer_instances(target: Target, host: StandIn) -> None:
    publish(target, order({"a": an_agent(count=2)}))
    host.events.clear()
    publish(target, order({"a": an_agent(count=4)}))
    assert host.of("started") == ["a-3", "a-4"]
    publish(target, order({"a": an_agent(count=1)}))
    assert host.placed() == {"a-1"}
    assert host.of("started") == ["a-3", "a-4"]


def test_what_an_operator_stopped_stays_stopped(target: Target, host: StandIn, consul: ConsulServer) -> None:
    publish(target, order({"a": an_agent(count=2)}))
    doc, index = get_doc(consul.client, PLACEMENT + "a", PlacementDoc)
    assert doc
    stopped = [msgspec.structs.replace(p, state="stopped") if p.instance == "a-2" else p for p in doc.instances]
    put_docs(consul.client, [Change(PLACEMENT + "a", PlacementDoc("a", tuple(stopped)), index)])
    assert not publish(target, order({"a": an_agent(count=2)})).changed
    result = publish(target, order({"a": an_agent(count=2, args=["x"])}))
    assert result.restarted == ["a-1"]
    doc, _ = get_doc(consul.client, PLACEMENT + "a", PlacementDoc)
    assert doc
    assert [(p.instance, p.state) for p in doc.instances] == [("a-1", "run"), ("a-2", "stopped")]
    assert len({p.version for p in doc.instances}) == 1


def test_a_killed_run_is_finished_by_the_next(target: Target, host: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(target, order({"a": an_agent(count=3)}))
    changed = order({"a": an_agent(count=3, args=["x"])})
    act, calls = Driver._act, []

    def die_in_the_middle(self: Driver, *args: Any) -> bool:
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return act(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Driver, "_act", die_in_the_middle)
        with pytest.raises(KeyboardInterrupt):
            publish(target, changed)
    host.events.clear()
    result = publish(target, changed)
    assert "unfinished" in result.operations[0]
    assert 0 < len(result.restarted) < 3
    assert overview(target).healthy
    assert not publish(target, changed).changed


def test_two_runs_at_once_exclude_each_other(target: Target, host: StandIn, consul: ConsulServer) -> None:
    with RunLock(consul.client, RUN_LOCK, "somebody"), pytest.raises(Locked, match=r"somebody on .* since 20"):
        publish(target, order(TWO))
    assert documents(consul) == {}


def test_another_writer_in_between_is_noticed_and_kept(
    target: Target, host: StandIn, consul: ConsulServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(target, order({"a": an_agent(count=2)}))
    act, calls = Driver._act, []

    def meddle(self: Driver, *args: Any) -> bool:
        calls.append(1)
        if len(calls) == 1:
            doc, index = get_doc(consul.client, PLACEMENT + "a", PlacementDoc)
            assert doc
            more = tuple(msgspec.structs.replace(p, generation=7) for p in doc.instances)
            put_docs(consul.client, [Change(PLACEMENT + "a", PlacementDoc("a", more), index)])
        return act(self, *args)

    monkeypatch.setattr(Driver, "_act", meddle)
    publish(target, order({"a": an_agent(count=2, args=["x"])}))
    doc, _ = get_doc(consul.client, PLACEMENT + "a", PlacementDoc)
    assert doc
    assert [p.generation for p in doc.instances] == [7, 7]


def test_many_agents_are_published_in_few_transactions(target: Target, host: StandIn) -> None:
    many = {f"agent-{n}": an_agent(config={"text": "x" * 2000}) for n in range(100)}
    result = publish(target, order(many, wait_s=30.0))
    assert result.agents.added == 100
    assert len(overview(target).agents) == 100


def test_another_fleet_is_not_drained_by_mistake(target: Target, host: StandIn, consul: ConsulServer) -> None:
    publish(target, order(TWO))
    before = documents(consul)
    other = Order(msgspec.to_builtins(Definition("other", {"c": an_agent()}, (HOST,))))
    with pytest.raises(FleetError, match="2 agents of the fleet test, which other would remove: a, b"):
        publish(target, other)
    assert documents(consul) == before
