"""Placers on a real Consul: one decides, operators go first, and nobody writes over anybody."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from msgspec.structs import replace

from integration.conftest import ConsulServer
from outrider.discovery.feed import Feed
from outrider.failover.desk import Desk
from outrider.failover.election import Election
from outrider.failover.placer import LOST_S, STARTS_AT_ONCE, Picture
from outrider.failover.placer_loop import Placer
from outrider.failover.sight import GOSSIP
from outrider.fleet.spec import Agent, Host
from outrider.registry.client import connect
from outrider.registry.kv import Change, get_doc, put_docs
from outrider.registry.layout import (
    FLEET,
    HOSTS,
    PLACEMENT,
    PLACER_LOCK,
    RUN_LOCK,
    SHIM,
    TAG,
    AgentDoc,
    HostDoc,
    Placed,
    PlacementDoc,
)
from outrider.registry.lock import LockState, RunLock, lock_state
from outrider.registry.services import register_node_check

pytestmark = pytest.mark.integration
NAMES = ("h1", "h2", "h3")
WITHIN_S = 30.0


class Fleet:
    """Three hosts that are only in the catalog, and agents of which A-1 is on h1."""

    def __init__(self, consul: ConsulServer) -> None:
        self.consul = consul
        for name in NAMES:
            self.register(name, SHIM, SHIM, "")
            self.gossip(name, "passing")
            put_docs(consul.client, [Change(HOSTS + name, HostDoc(Host(name)), 0)])

    def publish(self, agent: Agent, *placed: Placed, name: str = "A") -> None:
        doc = AgentDoc(name, "lab", agent, "v1")
        put_docs(self.consul.client, [Change(FLEET + name, doc, 0)])
        put_docs(self.consul.client, [Change(PLACEMENT + name, PlacementDoc(name, placed), 0)])

    def register(self, node: str, service_id: str, service: str, status: str) -> None:
        """A service, as the node's shim would register it."""
        body = {"Node": node, "Address": "127.0.0.1"}
        body["Service"] = {"ID": service_id, "Service": service, "Tags": [TAG] if status else []}
        if status:
            body["Check"] = {"Name": "x", "CheckID": f"c:{service_id}", "ServiceID": service_id, "Status": status}
        self.consul.client.put("/v1/catalog/register", msgspec.json.encode(body))

    def gossip(self, node: str, status: str) -> None:
        """What gossip says of a host."""
        check = {"Name": "serf", "CheckID": "serfHealth", "Status": status}
        body = {"Node": node, "Address": "127.0.0.1", "Check": check}
        self.consul.client.put("/v1/catalog/register", msgspec.json.encode(body))

    def drain(self, name: str) -> None:
        doc, index = get_doc(self.consul.client, HOSTS + name, HostDoc)
        assert doc
        put_docs(self.consul.client, [Change(HOSTS + name, replace(doc, state="drained", reason="test"), index)])

    def placement(self, name: str = "A") -> PlacementDoc:
        doc, _ = get_doc(self.consul.client, PLACEMENT + name, PlacementDoc)
        assert doc
        return doc

    def where(self, name: str = "A") -> list[str]:
        return [placed.host for placed in self.placement(name).instances]

    def picture(self) -> Picture:
        """What a placer knows before it reads the documents: since when h1 is lost."""
        return Picture({}, {}, {}, 100.0, lost={"h1": 100.0 - LOST_S})


@pytest.fixture
def fleet(consul: ConsulServer) -> Iterator[Fleet]:
    return Fleet(consul)


@asynccontextmanager
async def placing(fleet: Fleet, host: str) -> AsyncIterator[Placer]:
    """A placer as a shim has it."""
    client = connect(fleet.consul.address)
    with ThreadPoolExecutor(8) as executor, TemporaryDirectory() as folder:
        nothing: Callable[..., None] = lambda *_: None  # noqa: E731
        feed = Feed(client, executor, Path(folder), on_documents=nothing, on_members=nothing, on_contact=nothing)
        placer = Placer(client, executor, host, lambda: feed.view)
        feed.start()
        placer.start()
        try:
            yield placer
        finally:
            await placer.stop()
            await feed.stop()


async def eventually(says: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not await asyncio.to_thread(says):
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.05)


async def test_of_two_one_decides_and_the_other_takes_over(fleet: Fleet) -> None:
    fleet.publish(Agent(module="x"), Placed("A-1", "h1", "v1"))
    fleet.publish(Agent(module="x"), Placed("B-1", "h3", "v1"), name="B")
    async with placing(fleet, "p2") as second:
        async with placing(fleet, "p1") as first:
            await eventually(lambda: first.elected or second.elected)
            fleet.gossip("h1", "critical")
            began = time.monotonic()
            await eventually(lambda: fleet.where() == ["h2"])
            assert time.monotonic() - began >= LOST_S
            assert fleet.placement().reason == "A-1 moves from h1 to h2: h1 is lost"
            assert abs(fleet.placement().since - time.time()) < WITHIN_S
            assert first.elected != second.elected
            decider, other = (first, second) if first.elected else (second, first)
            assert (dict(decider.counts), dict(other.counts)) == ({"lost": 1}, {})
            await eventually(lambda: other.holder == decider.holder != "")
            fleet.gossip("h1", "passing")
            await eventually(lambda: "h1" in decider.sight.well)
        await eventually(lambda: second.elected)
        fleet.gossip("h3", "critical")
        await eventually(lambda: fleet.where("B") == ["h1"])
        assert fleet.where() == ["h2"]


async def test_starts_that_an_earlier_placer_ordered_count_for_the_next_one(fleet: Fleet) -> None:
    names = [f"A{number}" for number in range(STARTS_AT_ONCE + 4)]
    for name in names:
        fleet.publish(Agent(module="x"), Placed(f"{name}-1", "h1", "v1"), name=name)

    def moved() -> dict[str, str]:
        return {name: host for name in names for host in fleet.where(name) if host != "h1"}

    async with placing(fleet, "p1") as first:
        await eventually(lambda: first.elected)
        fleet.gossip("h1", "critical")
        await eventually(lambda: len(moved()) == STARTS_AT_ONCE)
    async with placing(fleet, "p2") as second:
        await eventually(lambda: second.elected)
        started, host = next(iter(moved().items()))
        fleet.register(host, f"{started}-1", started, "passing")
        await eventually(lambda: len(moved()) > STARTS_AT_ONCE)
        assert len(moved()) == STARTS_AT_ONCE + 1


async def test_an_operators_run_goes_first(fleet: Fleet) -> None:
    fleet.publish(Agent(module="x"), Placed("A-1", "h1", "v1"))
    async with placing(fleet, "p1") as placer:
        await eventually(lambda: placer.elected)
        with RunLock(connect(fleet.consul.address), RUN_LOCK, "anna"):
            fleet.gossip("h1", "critical")
            await eventually(lambda: "anna" in placer._said.get("blocked", ""))
            assert fleet.where() == ["h1"]
        await eventually(lambda: fleet.where() == ["h2"])


async def test_a_drained_host_is_emptied_without_a_gap(fleet: Fleet) -> None:
    fleet.publish(Agent(module="x"), Placed("A-1", "h1", "v1"))
    fleet.register("h1", "A-1", "A", "passing")
    async with placing(fleet, "p1") as placer:
        fleet.drain("h1")
        await eventually(lambda: fleet.where() == ["h1", "h2"])
        fleet.register("h2", "A-1", "A", "critical")
        await eventually(lambda: ("A-1", "h1") in placer.sight.passing)
        assert fleet.where() == ["h1", "h2"]
        fleet.register("h2", "A-1", "A", "passing")
        await eventually(lambda: fleet.where() == ["h2"])
        assert dict(placer.counts) == {"drained": 1, "arrived": 1}


def elected(fleet: Fleet) -> Election:
    election = Election(fleet.consul.client, PLACER_LOCK, "p1")
    assert election.campaign()
    return election


def lost(fleet: Fleet) -> None:
    fleet.publish(Agent(module="x"), Placed("A-1", "h1", "v1"))
    fleet.gossip("h1", "critical")


def test_one_whose_lock_was_lost_unnoticed_writes_nothing(fleet: Fleet) -> None:
    lost(fleet)
    election = elected(fleet)
    fleet.consul.client.put(f"/v1/session/destroy/{election.guard.session}")
    outcome = Desk(fleet.consul.client).work(fleet.picture(), election.guard)
    assert (outcome.done, outcome.refused, outcome.lost_election) == ((), ("A",), True)
    assert fleet.where() == ["h1"]


def test_a_document_that_somebody_changes_meanwhile_is_left_and_done_the_next_time(fleet: Fleet) -> None:
    lost(fleet)
    election = elected(fleet)

    def change() -> float:
        """Called between the read and the write."""
        doc, index = get_doc(fleet.consul.client, PLACEMENT + "A", PlacementDoc)
        assert doc
        mine = replace(doc, instances=(replace(doc.instances[0], generation=9),))
        put_docs(fleet.consul.client, [Change(PLACEMENT + "A", mine, index)])
        return 0.0

    outcome = Desk(fleet.consul.client, change).work(fleet.picture(), election.guard)
    assert (outcome.done, outcome.refused, outcome.lost_election) == ((), ("A",), False)
    assert Desk(fleet.consul.client).work(fleet.picture(), election.guard).done
    assert fleet.placement().instances == (Placed("A-1", "h2", "v1", generation=9, home="h1"),)


def test_a_run_that_begins_between_look_and_write_is_not_disturbed(fleet: Fleet) -> None:
    lost(fleet)
    election = elected(fleet)
    with RunLock(connect(fleet.consul.address), RUN_LOCK, "an earlier run"):
        pass
    run = RunLock(connect(fleet.consul.address), RUN_LOCK, "anna")

    def begin() -> float:
        run.__enter__()
        return 0.0

    try:
        outcome = Desk(fleet.consul.client, begin).work(fleet.picture(), election.guard)
        assert (outcome.done, outcome.refused, outcome.lost_election) == ((), ("A",), False)
        assert fleet.where() == ["h1"]
    finally:
        run.__exit__(None, None, None)


def test_a_consul_without_a_fleet_is_left_untouched(fleet: Fleet) -> None:
    assert not Election(fleet.consul.client, PLACER_LOCK, "p1").campaign()
    assert lock_state(fleet.consul.client, PLACER_LOCK) == LockState()
    assert fleet.consul.client.get("/v1/session/list").body.strip() == b"[]"


def test_a_host_that_came_back_meanwhile_keeps_its_instances(fleet: Fleet) -> None:
    fleet.publish(Agent(module="x"), Placed("A-1", "h1", "v1"))
    outcome = Desk(fleet.consul.client).work(fleet.picture(), elected(fleet).guard)
    assert outcome.done == ()


def test_another_candidate_waits_out_the_lock_delay_unless_it_was_given_up(fleet: Fleet) -> None:
    lost(fleet)
    first = elected(fleet)
    second = Election(connect(fleet.consul.address), PLACER_LOCK, "p2")
    assert not second.campaign()
    assert second.holder == "p1"
    first.resign()
    time.sleep(0.5)  # candidates look at most that often
    assert second.campaign()
    assert not first.is_ours


def test_a_shim_that_was_killed_decides_on_when_it_is_back(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    lost(fleet)
    with subprocess.Popen(["true"]) as gone:
        pass
    with monkeypatch.context() as patched:
        patched.setattr("os.getpid", lambda: gone.pid)
        before = elected(fleet)
    again = Election(connect(fleet.consul.address), PLACER_LOCK, "p1")
    assert again.campaign()
    assert again.guard == before.guard
    assert again.campaign()
    before.lose()  # as when Consul has ended its session meanwhile
    again = Election(connect(fleet.consul.address), PLACER_LOCK, "p1")
    assert not again.campaign()


def test_nobody_goes_on_for_a_shim_that_only_stands_still(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    lost(fleet)
    with subprocess.Popen(["sleep", "60"]) as alive:
        with monkeypatch.context() as patched:
            patched.setattr("os.getpid", lambda: alive.pid)
            elected(fleet)
        assert not Election(connect(fleet.consul.address), PLACER_LOCK, "p1").campaign()
        alive.kill()


def test_who_stands_still_is_not_elected_any_more(fleet: Fleet) -> None:
    lost(fleet)
    client = fleet.consul.client
    register_node_check(client, SHIM, "shim", 0.5)
    client.put(f"/v1/agent/check/pass/{SHIM}")
    first = Election(client, PLACER_LOCK, "p1", checks=(GOSSIP, SHIM))
    assert first.campaign()
    second, until = Election(connect(fleet.consul.address), PLACER_LOCK, "p2"), time.monotonic() + WITHIN_S
    while not second.campaign():
        assert time.monotonic() < until
        time.sleep(0.05)
    assert lock_state(client, PLACER_LOCK).session != first.guard.session
