"""What may happen in the middle of a migration, on one host: its driver is killed, people and disks interfere.

`make test` has time for one strategy; `make faults-migration` kills the drivers of all.
"""

from __future__ import annotations

import itertools
import os
import resource
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import pytest

from integration.publishing import an_agent, order
from integration.shim.consul_relay import ENTRY, Relay
from integration.shim.migrating import QUICK, Fleet, adding, ledger, serving
from outrider.calls.state_folder import CHUNK
from outrider.daemon.migration_truth import read_truth
from outrider.errors import ConsulConflict, FleetError, MigrationRefused
from outrider.fleet.spec import Agent
from outrider.migration.publication import Target, publish
from outrider.migration.staged.ask import create
from outrider.migration.staged.edits import claimed
from outrider.migration.staged.journal import append, entry_change, spec_change
from outrider.migration.staged.records import Given, Journal, digest, next_entry
from outrider.registry.kv import Change, get_doc, put_docs
from outrider.registry.layout import FLEET, MIGRATIONS, PLACEMENT, PUBLISHED, AgentDoc, PlacementDoc
from outrider.registry.published import Published

pytest_plugins = ("integration.shim.shim_host",)

Direction = Literal["forward", "back"]
LONG = Given(canary_s=0.3, verify_s=600.0)
END_S = 180.0
FORWARD = {
    "replicated": ["start", "canary", "shift", "verify"],
    "singleton": ["start", "hand over", "verify"],
    "state": ["start", "copy", "hand over", "verify"],
    "cold": ["start", "close", "open", "verify"],
}
BACK = {
    "replicated": ["rollback", "restore"],
    "singleton": ["rollback", "hand back"],
    "state": ["rollback", "hand back", "take back"],
    "cold": ["rollback", "close again", "open again"],
}


def agent_of(strategy: str, **environment: str) -> Agent:
    if strategy == "cold":
        return msgspec.structs.replace(an_agent(command=["sleep", "1000"], mode="singleton"), environment=environment)
    mode = "replicated" if strategy == "replicated" else "singleton"
    return ledger(mode, state=strategy == "state", **environment)


class Killer:
    """Kills the shim before and after each entry that it writes, once each; `begin` says from which on."""

    def __init__(self, fleet: Fleet, begin: str) -> None:
        self.points: list[tuple[str, bool]] = []
        self._fleet, self._begin = fleet, begin
        self.relay = Relay(fleet.host.consul.ports["http"], self._at)
        config = fleet.host.config.read_text()
        fleet.host.config.write_text(
            config.replace(f"port = {fleet.host.consul.ports['http']}\n", f"port = {self.relay.port}\n")
        )

    def _at(self, name: str, written: bool) -> bool:
        if (name, written) in self.points or not (self.points or name == self._begin):
            return True
        self.points.append((name, written))
        assert self._fleet.host.shim
        self._fleet.host.shim.kill()
        return False

    def keep_shim(self) -> None:
        """Start it again wherever it was killed."""
        assert self._fleet.host.shim
        if self._fleet.host.shim.poll() is not None:
            self._fleet.host.start()


@pytest.mark.parametrize("direction", ["forward", "back"])
@pytest.mark.parametrize("strategy", list(FORWARD) if "OUTRIDER_FAULTS" in os.environ else ["state"])
def test_a_driver_that_is_killed_before_and_after_each_entry_goes_on(
    fleet: Fleet, call: Callable[..., Any], strategy: str, direction: Direction
) -> None:
    back = direction == "back"
    wanted = [*(BACK if back else FORWARD)[strategy], "ended"]
    killer = Killer(fleet, wanted[0])
    fleet.place(agent_of(strategy), 2 if strategy == "replicated" else 1)
    fleet.host.start()
    fleet.host.wait(lambda: fleet.host.passing("Ledger"))
    with adding(call) as load:
        migration = fleet.migrate(agent_of(strategy, MARK="new"), LONG if back else QUICK)
        asked = False

        def ended() -> bool:
            nonlocal asked
            killer.keep_shim()
            journal = fleet.desk.get(migration)
            if back and not asked and journal.entries[-1].step == "verify":
                asked = bool(fleet.desk.rollback(migration, "test"))
            return journal.ended is not None and ("ended", True) in killer.points

        fleet.host.wait(ended, END_S)
    fleet.host.wait(lambda: killer.keep_shim() or fleet.host.served("Ledger"))
    assert killer.points == list(itertools.product(wanted, (False, True)))
    survivor = "Ledger-1" if back else ("Ledger-3" if strategy == "replicated" else "Ledger-2")
    assert survivor in {name for name, _ in fleet.instances()}
    assert len(fleet.instances()) == (2 if strategy == "replicated" else 1)
    assert fleet.desk.get(migration).broken == ""
    if strategy == "state":
        assert set(call("known")) >= {number for _, (number, _) in load.answers}


def test_of_two_operators_one_is_told_which_migration_there_is(fleet: Fleet, call: Callable[..., Any]) -> None:
    fleet.place(ledger("singleton"))
    serving(fleet, call)
    one, other = (fleet.plan(ledger("singleton", MARK=mark)) for mark in ("one", "other"))
    first = create(fleet.host.consul.client, one)[0].id
    with pytest.raises(MigrationRefused, match=f"Ledger is to be moved by migration {first}, of test"):
        create(fleet.host.consul.client, other)
    fleet.host.wait(lambda: fleet.placed().migration == first)
    with pytest.raises(MigrationRefused, match=f"Ledger is being moved already, by migration {first}"):
        fleet.migrate(ledger("singleton", MARK="other"))
    assert fleet.end(first).state == "finalised"


def test_nothing_is_published_over_the_version_of_a_migration_that_began_meanwhile(fleet: Fleet) -> None:
    consul = fleet.host.consul.client
    fleet.place(ledger("singleton"))
    first = create(consul, fleet.plan(ledger("singleton", MARK="one")))[0]
    other = fleet.plan(ledger("singleton", MARK="other"), version="v3")
    placement, index = get_doc(consul, PLACEMENT + "Ledger", PlacementDoc)
    assert placement
    put_docs(consul, [Change(PLACEMENT + "Ledger", claimed(placement, first), index)])
    with pytest.raises(MigrationRefused, match=f"Ledger is to be moved by migration {first.id}, of test"):
        create(consul, other)
    published, _ = get_doc(consul, FLEET + "Ledger", AgentDoc)
    assert published
    assert (published.version, [journal.id for journal in fleet.desk.journals()[0]]) == ("v2", [first.id])


def test_a_driver_writes_nothing_by_a_document_that_was_published_over(fleet: Fleet) -> None:
    consul = fleet.host.consul.client
    fleet.place(ledger("singleton"))
    migration = fleet.migrate(ledger("singleton", MARK="new"))
    journal = fleet.desk.get(migration)
    truth = read_truth(consul, journal.spec)
    fleet.publish("v3", "v2")
    begun = next_entry(journal, "begun", 1.0, "local", step="start")
    with pytest.raises(ConsulConflict, match=f"{FLEET}Ledger"):
        append(consul, migration, begun, guards=truth.guards)
    append(consul, migration, begun, guards=read_truth(consul, journal.spec).guards)


def test_one_whose_version_is_published_over_goes_back_and_names_both(fleet: Fleet, call: Callable[..., Any]) -> None:
    fleet.place(ledger("singleton"))
    serving(fleet, call)
    with adding(call) as load:
        migration = fleet.migrate(ledger("singleton", MARK="new"), LONG)
        fleet.host.wait(lambda: fleet.report(migration).phase == "verify")
        fleet.publish("v3", "v1")
        report = fleet.end(migration)
    assert (report.state, report.reason) == ("rolled_back", "Ledger is published at version v3, not at v2 any more")
    assert (fleet.instances(), load.errors) == ([("Ledger-1", "v1")], [])
    assert set(call("known")) >= {number for _, (number, _) in load.answers}


def test_an_order_of_a_later_version_is_cancelled_and_what_is_not_known_of_it_is_named(
    fleet: Fleet, call: Callable[..., Any]
) -> None:
    fleet.place(ledger("singleton"))
    serving(fleet, call)
    (plan,) = fleet.plan(ledger("singleton", MARK="new"))
    later = msgspec.to_builtins(plan.spec) | {"shadow": True}
    first = next_entry(Journal(plan.spec, head=digest(msgspec.json.encode(later))), "planned", 1.0, "test")
    spec_key = spec_change(plan.spec).key
    put_docs(fleet.host.consul.client, [Change(spec_key, later, 0), entry_change(plan.spec.id, first)])
    report = fleet.end(plan.spec.id)
    assert (report.state, [row.what for row in report.rows]) == ("cancelled", ["planned", "cancelled"])
    assert "does not know shadow: upgrade its shim" in report.rows[-1].said
    assert (fleet.instances(), call("add", {"number": 1})["instance"]) == ([("Ledger-1", "v1")], "Ledger-1")


def test_a_run_of_site_yml_is_refused_meanwhile(fleet: Fleet, call: Callable[..., Any]) -> None:
    fleet.place(ledger("singleton"))
    serving(fleet, call)
    migration = fleet.migrate(ledger("singleton", MARK="new"), LONG)
    fleet.host.wait(lambda: fleet.placed().migration)
    before = fleet.placed(), get_doc(fleet.host.consul.client, FLEET + "Ledger", AgentDoc)
    with pytest.raises(FleetError, match=f"Ledger is being moved by migration {migration}"):
        publish(Target(consul_port=fleet.host.consul.ports["http"]), order({"Ledger": ledger("singleton")}))
    fleet.host.wait(lambda: fleet.report(migration).phase == "verify")
    assert get_doc(fleet.host.consul.client, FLEET + "Ledger", AgentDoc) == before[1]


def test_an_agent_that_leaves_the_fleet_takes_its_migration_along(fleet: Fleet, call: Callable[..., Any]) -> None:
    fleet.place(ledger("singleton"))
    serving(fleet, call)
    migration = fleet.migrate(ledger("singleton", MARK="new"), LONG)
    fleet.host.wait(lambda: fleet.report(migration).phase == "verify")
    put_docs(fleet.host.consul.client, [Change(PUBLISHED, Published(1), 0)])
    for key in (PLACEMENT, FLEET):
        fleet.host.consul.client.delete(f"/v1/kv/{key}Ledger")
    report = fleet.end(migration)
    assert (report.state, report.reason) == ("cancelled", "Ledger is not in the fleet any more")
    fleet.host.wait(lambda: not fleet.host.agents())


@pytest.mark.parametrize("damage", ["cannot be read", "was changed"])
def test_a_damaged_journal_stops_its_migration_and_names_the_entry(
    fleet: Fleet, call: Callable[..., Any], damage: str
) -> None:
    fleet.place(ledger("singleton"))
    serving(fleet, call)
    migration = fleet.migrate(ledger("singleton", MARK="new"))
    fleet.host.wait(lambda: len(fleet.desk.get(migration).entries) > 2)
    key = f"/v1/kv/{MIGRATIONS}{migration}{ENTRY}00001"
    good = fleet.host.consul.client.get(key, params={"raw": ""}).body
    fleet.host.consul.client.put(key, good[:-9] if damage == "cannot be read" else good.replace(b"start", b"begin"))
    seen = fleet.host.wait(lambda: found if (found := fleet.report(migration)).state == "broken" else None)
    assert seen.reason.startswith("entry 1: " if damage == "cannot be read" else "entry 2 does not follow")
    time.sleep(1.5)  # longer than it is judged
    left = fleet.desk.get(migration)
    assert left.ended is None
    assert call("add", {"number": 1})["instance"] in ("Ledger-1", "Ledger-2")
    with pytest.raises(MigrationRefused, match="its journal is broken"):
        fleet.desk.rollback(migration, "test")
    fleet.host.consul.client.put(key, good)
    assert fleet.end(migration).state == "finalised"


def test_a_disk_that_takes_no_copy_leaves_the_state_where_it_is(fleet: Fleet, call: Callable[..., Any]) -> None:
    sized = ledger("singleton", LEDGER_BYTES=str(8 * CHUNK))
    fleet.place(sized)
    serving(fleet, call)
    with adding(call) as load:
        migration = fleet.migrate(ledger("singleton", MARK="new"))
        pid = fleet.host.wait(lambda: fleet.pid("Ledger-2"))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (CHUNK, CHUNK))
        report = fleet.end(migration)
    assert (report.state, load.errors) == ("rolled_back", [])
    assert "copy: its state cannot be copied: " in report.reason
    assert "File too large" in report.reason
    assert fleet.instances() == [("Ledger-1", "v1")]
    assert set(call("known")) >= {number for _, (number, _) in load.answers}
