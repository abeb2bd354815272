"""A singleton on one host, with real processes and a real Consul: one holder at a time, and another when it dies."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec.structs import replace

from integration.shim.under_load import COUNTER, counting
from outrider.calls.client import Client
from outrider.errors import CallError
from outrider.fleet.spec import Agent
from outrider.registry import leases
from outrider.registry.layout import AgentDoc, Handover, Placed, PlacementDoc
from outrider.registry.leases import LEASES, Lease

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)

BOTH = ("Counter-1", "Counter-2")


def place(host: ShimHost, *instances: str) -> None:
    """The singleton Counter, with as many standbys as there are instances beside the first."""
    agent = Agent(
        command=(sys.executable, str(COUNTER)),
        ports={"call": "auto"},
        mode="singleton",
        standbys=len(instances) - 1,
        environment={"COUNTER_LOG": str(host.folder / "counted")},
        probes=(),
    )
    placement = PlacementDoc("Counter", tuple(Placed(name, "local", "v1") for name in instances))
    host.docs["Counter"] = (AgentDoc("Counter", "test", agent, "v1"), placement)
    host.write()


def lease(host: ShimHost) -> Lease | None:
    reply = host.consul.client.get(f"/v1/kv/{LEASES}", params={"recurse": ""})
    return leases.decode_leases(reply)[0].get("Counter")


def holder(host: ShimHost) -> str:
    """Who may be called, once the other instance runs as a standby."""
    served = host.served("Counter")
    return served[0].instance if served and served[0].epoch else ""


def pid_of(host: ShimHost, instance: str) -> int:
    reports = msgspec.json.decode(host.request("GET", "/v1/status"))["instances"]
    return int(next(report["pid"] for report in reports if report["instance"] == instance))


def roles(host: ShimHost) -> dict[str, str]:
    with contextlib.suppress(Exception):
        reports = msgspec.json.decode(host.request("GET", "/v1/status"))["instances"]
        return {r["instance"]: r["role"] for r in reports if r["status"] == "passing"}
    return {}


@pytest.fixture
def pair(host: ShimHost) -> ShimHost:
    """A holder and its standby."""
    place(host, *BOTH)
    host.start()
    host.wait(lambda: sorted(roles(host).values()) == ["holder", "standby"])
    return host


@pytest.fixture
def client(host: ShimHost) -> Iterator[Client]:
    client = Client(runtime=host.folder / "runtime", caller="test")
    yield client
    client.close()


class UnderWay:
    """A call that is being worked on inside the block, and has ended after it."""

    def __init__(self, host: ShimHost, client: Client, method: str, seconds: float) -> None:
        self.answer: int | None = None
        self.error: CallError | None = None
        self._host, self._client, self._method, self._seconds = host, client, method, seconds
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> UnderWay:
        self._thread.start()
        began = self._host.folder / "counted.began"
        self._host.wait(lambda: began.exists() and self._method in began.read_text())
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            self.answer = self._client.call("Counter", self._method, {"s": self._seconds}, timeout=10.0)
        except CallError as error:
            self.error = error


def worked_in_turn(host: ShimHost) -> list[int]:
    """The epochs in the order of the work; no epoch comes back after another."""
    lines = sorted(tuple(line.split()) for line in (host.folder / "counted").read_text().splitlines())
    epochs = [int(epoch) for _, epoch, _ in lines]
    assert epochs == sorted(epochs)
    assert 0 not in epochs
    return sorted(set(epochs))


def test_when_the_holder_is_killed_its_standby_takes_over(pair: ShimHost, client: Client) -> None:
    first = holder(pair)
    other = next(name for name in BOTH if name != first)
    with counting(client) as caller:
        pair.wait(lambda: len(caller.answers) > 20)
        os.kill(pid_of(pair, first), signal.SIGKILL)
        pair.wait(lambda: caller.last["instance"] == other)
        pair.wait(lambda: roles(pair).get(first) == "standby")
    assert caller.errors == []
    assert len(worked_in_turn(pair)) == 2
    held = lease(pair)
    assert held
    assert (held.doc.holder, held.doc.state) == (other, "held")
    assert held.session


def hand_over(host: ShimHost, instance: str, epoch: int) -> None:
    doc, placement = host.docs["Counter"]
    host.docs["Counter"] = (doc, replace(placement, handover=Handover(instance, "local", epoch)))
    host.write()


def test_a_lease_is_handed_over_to_whom_the_placement_names_and_no_call_fails(pair: ShimHost, client: Client) -> None:
    first, before = holder(pair), lease(pair)
    assert before
    other = next(name for name in BOTH if name != first)
    with counting(client) as caller:
        pair.wait(lambda: len(caller.answers) > 20)
        with UnderWay(pair, client, "linger", 0.3) as work:
            hand_over(pair, other, before.doc.epoch)
        pair.wait(lambda: caller.last["instance"] == other)
    assert (work.answer, work.error) == (before.doc.epoch, None)  # it was finished, not cut off
    assert caller.errors == []
    assert len(worked_in_turn(pair)) == 2
    after = lease(pair)
    assert after
    assert after.doc.reason == f"{first} gave it up: handed over to {other} on local"
    assert roles(pair) == {first: "standby", other: "holder"}


def test_a_holder_that_does_not_finish_in_time_goes_on(pair: ShimHost, client: Client) -> None:
    before = lease(pair)
    assert before
    other = next(name for name in BOTH if name != before.doc.holder)
    with UnderWay(pair, client, "linger", 3.5) as work:
        hand_over(pair, other, before.doc.epoch)
        pair.wait(lambda: "goes on: what it works on was not done" in pair.log.read_text())
        assert client.call("Counter", "add", timeout=2.0)["instance"] == before.doc.holder
    assert work.answer == before.doc.epoch
    after = lease(pair)
    assert after
    assert (after.doc.epoch, after.session) == (before.doc.epoch, before.session)


def test_a_shim_that_is_killed_while_it_hands_over_leaves_no_holder_closed(pair: ShimHost, client: Client) -> None:
    before = lease(pair)
    assert before
    other = next(name for name in BOTH if name != before.doc.holder)
    with UnderWay(pair, client, "linger", 1.5):
        hand_over(pair, other, before.doc.epoch)
        pair.wait(lambda: _refused(client))
        pair.end(signal.SIGKILL)
        doc, placement = pair.docs["Counter"]
        pair.docs["Counter"] = (doc, replace(placement, handover=None))  # nobody asks for it any more
        pair.write()
        pair.start()
    said = client.call("Counter", "add", timeout=5.0)
    assert (said["instance"], said["epoch"]) == (before.doc.holder, before.doc.epoch)


def test_a_standby_refuses_work_and_says_who_holds_the_lease(pair: ShimHost, client: Client) -> None:
    from outrider.calls.connection import Connection
    from outrider.calls.endpoint import connect
    from outrider.calls.frames import Refusal
    from outrider.discovery.records import Instance

    first = holder(pair)
    other = next(name for name in BOTH if name != first)
    instance = Instance("Counter", other, "local", "127.0.0.1", 0, {})
    sock = connect(instance, pair.folder / "runtime", 2.0, None)
    connection = Connection(sock, "Counter", "test")
    now = time.monotonic()
    refusal, _ = connection.exchange("add", {}, "", 0, now + 2, now)
    connection.close()
    assert isinstance(refusal, Refusal)
    assert refusal.kind == "not_holder"
    assert first in refusal.message


def test_a_shim_that_is_restarted_keeps_its_holder(pair: ShimHost, client: Client) -> None:
    before = lease(pair)
    with counting(client) as caller:
        for number in (signal.SIGTERM, signal.SIGKILL):
            pair.end(number)
            pair.start()
            answered = len(caller.answers)
            pair.wait(lambda at_least=answered + 50: len(caller.answers) > at_least and holder(pair))
    after = lease(pair)
    assert before
    assert after
    assert (before.doc.epoch, before.session) == (after.doc.epoch, after.session)
    assert len(worked_in_turn(pair)) == 1
    assert caller.errors == []


def test_a_holder_whose_shim_is_gone_refuses_work_when_its_lease_is_over(pair: ShimHost, client: Client) -> None:
    assert client.call("Counter", "add", timeout=2.0)
    pair.end(signal.SIGKILL)
    pair.wait(lambda: _refused(client))
    pair.start()
    pair.wait(lambda: not _refused(client))


def _refused(client: Client) -> bool:
    try:
        client.call("Counter", "add", timeout=0.1)
    except CallError:
        return True
    return False


def test_a_session_that_consul_ends_costs_the_lease_and_another_holder_waits_out_the_lock_delay(
    pair: ShimHost, client: Client
) -> None:
    before = lease(pair)
    assert before
    with counting(client) as caller:
        pair.wait(lambda: len(caller.answers) > 20)
        ended = time.monotonic()
        pair.consul.client.put(f"/v1/session/destroy/{before.session}")
        pair.wait(lambda: caller.last["epoch"] > before.doc.epoch)
        next_at = next(at for at, said in caller.answers if said["epoch"] > before.doc.epoch)
    assert next_at - ended >= leases.LOCK_DELAY_S
    assert len(worked_in_turn(pair)) == 2


def test_consul_that_stands_still_stops_a_holder_that_has_nobody_to_ask(pair: ShimHost, client: Client) -> None:
    assert client.call("Counter", "add", timeout=2.0)
    before = lease(pair)
    pair.consul.freeze()
    try:
        pair.wait(lambda: _refused(client))
    finally:
        pair.consul.thaw()
    pair.wait(lambda: not _refused(client))
    after = lease(pair)
    assert before
    assert after
    assert after.doc.epoch >= before.doc.epoch
    worked_in_turn(pair)


def test_a_singleton_that_no_other_host_may_run_goes_on_without_consul(host: ShimHost, client: Client) -> None:
    place(host, "Counter-1")
    host.start()
    host.wait(lambda: holder(host))
    with counting(client) as caller:
        host.consul.freeze()
        try:
            until = time.monotonic() + 4.0
            host.wait(lambda: time.monotonic() > until and len(caller.answers) > 100)
        finally:
            host.consul.thaw()
    assert caller.errors == []
    assert len(worked_in_turn(host)) == 1


def test_work_that_outlasts_the_lease_is_not_acknowledged(pair: ShimHost, client: Client) -> None:
    """A coroutine is stopped; a function on a thread takes its process with it."""
    first = holder(pair)
    pid = pid_of(pair, first)
    found: list[CallError | int] = []

    def call(method: str) -> None:
        try:
            found.append(client.call("Counter", method, {"s": 20.0}, timeout=15.0))
        except CallError as error:
            found.append(error)

    callers = [threading.Thread(target=call, args=(method,), daemon=True) for method in ("hold", "linger")]
    for caller in callers:
        caller.start()
    began = pair.folder / "counted.began"
    pair.wait(lambda: began.exists() and sorted(began.read_text().split()) == ["hold", "linger"])
    held = lease(pair)
    assert held
    pair.consul.client.put(f"/v1/session/destroy/{held.session}")
    for caller in callers:
        caller.join()
    assert {type(error).__name__ for error in found} <= {"CallFailed", "ConnectionLost"}
    assert len(found) == 2
    pair.wait(lambda: pid not in pair.agents())


def test_a_holder_that_is_stopped_finishes_its_calls_and_then_hands_over(pair: ShimHost, client: Client) -> None:
    first = holder(pair)
    with counting(client) as caller:
        pair.wait(lambda: len(caller.answers) > 20)
        agent, placement = pair.docs["Counter"]
        stopped = tuple(
            msgspec.structs.replace(placed, state="stopped") if placed.instance == first else placed
            for placed in placement.instances
        )
        pair.docs["Counter"] = (agent, msgspec.structs.replace(placement, instances=stopped))
        pair.write()
        pair.wait(lambda: caller.last["instance"] != first)
    assert caller.errors == []
    assert len(worked_in_turn(pair)) == 2


def test_consul_that_lost_its_data_gets_higher_epochs(pair: ShimHost, client: Client) -> None:
    before = lease(pair)
    assert before
    pair.consul.wipe()
    pair.consul.start()
    pair.write()
    pair.wait(lambda: (now := lease(pair)) and now.session and now.doc.epoch > before.doc.epoch)
    pair.wait(lambda: client.call("Counter", "add", timeout=5.0)["epoch"] > before.doc.epoch)
    worked_in_turn(pair)


@pytest.mark.parametrize("remembered", [True, False])
def test_a_lease_of_an_instance_that_is_no_longer_placed_here_is_given_up(host: ShimHost, remembered: bool) -> None:
    """Its placement went while the shim was away, and with its disk maybe what the shim knew of it."""
    place(host, "Counter-1")
    host.start()
    host.wait(lambda: holder(host))
    host.end(signal.SIGKILL)
    if not remembered:
        (host.folder / "state" / "instances" / "Counter-1.json").unlink()
    host.docs["Counter"] = (host.docs["Counter"][0], PlacementDoc("Counter", (Placed("Counter-1", "other", "v1"),)))
    host.write()
    host.start()
    host.wait(lambda: (now := lease(host)) and now.doc.state == "released" and not now.session, within_s=40.0)


def test_a_sole_holder_whose_session_ends_works_on_under_its_epoch(host: ShimHost, client: Client) -> None:
    place(host, "Counter-1")
    host.start()
    host.wait(lambda: holder(host))
    before = lease(host)
    assert before
    with counting(client) as caller:
        host.wait(lambda: len(caller.answers) > 20)
        host.consul.client.put(f"/v1/session/destroy/{before.session}")
        host.wait(lambda: (now := lease(host)) and now.session not in ("", before.session))
    after = lease(host)
    assert after
    assert after.doc.epoch == before.doc.epoch
    assert caller.errors == []
    times = [at for at, _ in caller.answers]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < leases.LOCK_DELAY_S / 2
