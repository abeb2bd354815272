"""The state of a singleton goes with its lease, with real processes and a real Consul, and no write is lost."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace

from integration.shim.under_load import UnderLoad
from outrider.calls.client import Client
from outrider.calls.state_folder import CHUNK
from outrider.calls.state_orders import key_file
from outrider.daemon.state_copy import Copied, pre_copy
from outrider.discovery.records import Instance
from outrider.fleet.spec import Agent
from outrider.registry import kv, leases
from outrider.registry.layout import AgentDoc, Handover, MoveDoc, Placed, PlacementDoc, move_key
from outrider.registry.leases import LEASES, Member

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)

LEDGER = Path(__file__).parents[1] / "ledger_agent.py"
SIZE = 16 * CHUNK
KEY = "only for the two of them"
SOURCE, TARGET = "Ledger-1", "Ledger-2"


def place(
    host: ShimHost, *, size: int = SIZE, key: str = KEY, handover: Handover | None = None, hosts: str = "local"
) -> None:
    """The singleton Ledger, and beside it the instance that it moves to."""
    agent = Agent(
        command=(sys.executable, str(LEDGER)),
        ports={"call": "auto"},
        mode="singleton",
        standbys=1,
        state=True,
        environment={"LEDGER_BYTES": str(size)},
        probes=(),
    )
    placed = (Placed(SOURCE, "local", "v1", reserve=handover is not None), Placed(TARGET, "local", "v1", reserve=True))
    placement = PlacementDoc("Ledger", placed, handover=handover, state_key_hash=MoveDoc(key).hash if key else "")
    kv.put_docs(host.consul.client, [kv.Change(move_key("local", "Ledger"), MoveDoc(key, (hosts,)), None)])
    host.docs["Ledger"] = (AgentDoc("Ledger", "test", agent, "v1"), placement)
    host.write()


def lease(host: ShimHost) -> leases.LeaseDoc | None:
    reply = host.consul.client.get(f"/v1/kv/{LEASES}", params={"recurse": ""})
    found = leases.decode_leases(reply)[0].get("Ledger")
    return found.doc if found and found.session else None


def roles(host: ShimHost) -> dict[str, str]:
    try:
        reports = msgspec.json.decode(host.request("GET", "/v1/status"))["instances"]
    except Exception:
        return {}
    return {r["instance"]: r["role"] for r in reports if r["status"] == "passing"}


def pid_of(host: ShimHost, instance: str) -> int:
    reports = msgspec.json.decode(host.request("GET", "/v1/status"))["instances"]
    return int(next(report["pid"] for report in reports if report["instance"] == instance))


def copy_ahead(host: ShimHost) -> Copied:
    runtime = host.folder / "runtime"
    source, target = (Instance("Ledger", name, "local", "127.0.0.1", 0, {}) for name in (SOURCE, TARGET))
    return asyncio.run(pre_copy(source, target, KEY, runtime, None, 20.0, host="local"))


def hand_over(host: ShimHost) -> None:
    held = lease(host)
    assert held
    place(host, handover=Handover(TARGET, "local", held.epoch))


def adding(client: Client) -> UnderLoad[dict[str, Any]]:
    """Each answer says which number was acknowledged, and by whom."""
    numbers = itertools.count()

    def add() -> dict[str, Any]:
        number = next(numbers)
        said: dict[str, Any] = client.call("Ledger", "add", {"number": number}, timeout=8.0)
        return said | {"number": number}

    return UnderLoad(add)


def hold_s(caller: UnderLoad[dict[str, Any]]) -> float:
    """The longest that a caller had no answer around the change of the holder."""
    return max(
        later - at
        for (at, one), (later, other) in itertools.pairwise(caller.answers)
        if one["instance"] != other["instance"]
    )


@pytest.fixture
def pair(host: ShimHost) -> ShimHost:
    """A holder, and whom it is to give its state to."""
    place(host)
    host.start()
    host.wait(lambda: roles(host) == {SOURCE: "holder", TARGET: "standby"})
    host.wait(lambda: all(key_file(host.folder / "runtime", name).exists() for name in (SOURCE, TARGET)))
    return host


@pytest.fixture
def client(host: ShimHost) -> Iterator[Client]:
    made = Client(runtime=host.folder / "runtime")
    yield made
    made.close()


def test_a_state_goes_with_its_lease_and_no_write_is_lost(pair: ShimHost, client: Client) -> None:
    with adding(client) as caller:
        pair.wait(lambda: len(caller.answers) > 20)
        assert copy_ahead(pair).total_bytes >= SIZE
        hand_over(pair)
        pair.wait(lambda: caller.last["instance"] == TARGET)
        seen = len(caller.answers)
        pair.wait(lambda: len(caller.answers) > seen + 20)
    assert caller.errors == []
    acknowledged = {said["number"] for _, said in caller.answers}
    assert acknowledged <= set(client.call("Ledger", "known", timeout=5.0))
    held = lease(pair)
    assert held
    assert (held.holder, held.reason) == (TARGET, f"{SOURCE} gave it up: handed over to {TARGET} on local")
    print(f"hold {hold_s(caller):.3f} s")


def test_a_lease_whose_state_cannot_move_stays(pair: ShimHost, client: Client) -> None:
    """Here because the other has another key."""
    before = lease(pair)
    key_file(pair.folder / "runtime", TARGET).write_text("another")
    with adding(client) as caller:
        pair.wait(lambda: len(caller.answers) > 20)
        hand_over(pair)
        pair.wait(lambda: f"{SOURCE} goes on: its state does not move to {TARGET}" in pair.log.read_text())
        seen = len(caller.answers)
        pair.wait(lambda: len(caller.answers) > seen + 20)
    assert caller.errors == []
    assert {said["instance"] for _, said in caller.answers} == {SOURCE}
    assert lease(pair) == before


def test_a_lease_waits_for_the_key_to_its_state_and_goes_to_no_host_that_the_key_does_not_name(
    pair: ShimHost, client: Client
) -> None:
    """Without the state it must not go, whatever the placement says: all who may run an agent may write that."""
    before = lease(pair)
    assert before
    client.call("Ledger", "add", {"number": 1}, timeout=8.0)
    doc, placement = pair.docs["Ledger"]
    wish = Handover(TARGET, "local", before.epoch)
    pair.docs["Ledger"] = doc, replace(placement, state_key_hash=MoveDoc("another").hash, handover=wish)
    pair.write()
    pair.wait(lambda: "the state of Ledger waits for its key: Consul has another one" in pair.log.read_text())
    kv.put_docs(pair.consul.client, [kv.Change(move_key("local", "Ledger"), MoveDoc("another", ("h2",)), None)])
    pair.wait(lambda: f"{SOURCE} goes on: its state moves between h2, and not to local" in pair.log.read_text())
    assert lease(pair) == before
    assert client.call("Ledger", "known", timeout=5.0) == [1]


def test_a_reserve_does_not_take_the_lease_of_a_holder_that_died(pair: ShimHost, client: Client) -> None:
    before = lease(pair)
    assert before
    os.kill(pid_of(pair, SOURCE), signal.SIGKILL)
    after = pair.wait(lambda: (held := lease(pair)) and held.epoch > before.epoch and held)
    assert after.holder == SOURCE
    assert roles(pair).get(TARGET) == "standby"


def test_a_key_is_for_its_agent_alone_and_goes_with_the_placement_s(pair: ShimHost) -> None:
    files = [key_file(pair.folder / "runtime", name) for name in (SOURCE, TARGET)]
    assert [(file.read_text(), file.stat().st_mode & 0o777) for file in files] == [(KEY, 0o600)] * 2
    place(pair, key="a new one")
    pair.wait(lambda: all(file.read_text() == "a new one" for file in files))
    place(pair, key="")
    pair.wait(lambda: not any(file.exists() for file in files))


def test_a_member_that_is_new_is_handed_the_lease_at_once(host: ShimHost, client: Client) -> None:
    place(host, size=0)
    doc, placement = host.docs["Ledger"]
    host.docs["Ledger"] = doc, replace(placement, instances=placement.instances[:1], state_key_hash="")
    host.write()
    host.start()
    host.wait(lambda: roles(host) == {SOURCE: "holder"})
    held = lease(host)
    assert held
    host.docs["Ledger"] = doc, replace(placement, state_key_hash="", handover=Handover(TARGET, "local", held.epoch))
    host.write()
    after = host.wait(lambda: (now := lease(host)) and now.epoch > held.epoch and now)
    assert after.holder == TARGET
    assert after.has(TARGET, "local")
    assert Member(SOURCE, "local") in after.members
