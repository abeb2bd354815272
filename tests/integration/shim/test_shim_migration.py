"""Whole migrations on one host with a real shim, a real Consul and real agents: to another version, under load."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from integration.shim.migrating import QUICK, Fleet, adding, ledger, serving
from integration.shim.under_load import UnderLoad
from outrider.host.shim_client import ShimClient
from outrider.migration.risk.survey import Asked, of_running
from outrider.migration.staged.journal import entry_change, spec_change
from outrider.migration.staged.records import End, Given, Journal, Spec, next_entry
from outrider.migration.staged.retention import KEPT_OF_AGENT
from outrider.registry.kv import put_docs

if TYPE_CHECKING:
    pass

pytest_plugins = ("integration.shim.shim_host",)


def test_a_replica_is_replaced_by_another_version_and_no_call_fails(fleet: Fleet, call: Callable[..., Any]) -> None:
    fleet.place(ledger("replicated", state=False), 2)
    serving(fleet, call)
    with UnderLoad(lambda: call("who")) as load:
        report = fleet.end(fleet.migrate(ledger("replicated", state=False, MARK="new")))
    assert (report.state, load.errors) == ("finalised", [])
    assert [row.what for row in report.rows] == ["planned", "start", "canary", "shift", "verify", "finalised"]
    assert fleet.instances() == [("Ledger-2", "v1"), ("Ledger-3", "v2")]
    assert {answer for _, answer in load.answers} == {"Ledger-1", "Ledger-2", "Ledger-3"}
    assert fleet.placed().migration == ""


@pytest.mark.parametrize("mode", ["with state", "without"])
def test_a_singleton_passes_on_to_another_version_with_all_that_was_answered(
    fleet: Fleet, call: Callable[..., Any], mode: str
) -> None:
    state = mode == "with state"
    fleet.place(ledger("singleton", state=state))
    serving(fleet, call)
    with adding(call) as load:
        migration = fleet.migrate(ledger("singleton", state=state, MARK="new"))
        fleet.host.wait(lambda: "start" in [entry.step for entry in fleet.desk.get(migration).entries])
        begun, keys = fleet.placed(), fleet.keys()
        report = fleet.end(migration)
        until = time.monotonic() + 0.2
        fleet.host.wait(lambda: load.answers[-1][0] > until)
    assert (report.state, load.errors) == ("finalised", [])
    assert report.strategy == ("state" if state else "singleton")
    assert fleet.instances() == [("Ledger-2", "v2")]
    assert load.last[1] == "Ledger-2"
    if state:
        assert set(call("known")) >= {number for _, (number, _) in load.answers}
        assert [(name, key.hash, key.hosts) for name, key in keys.items()] == [
            ("local/Ledger", begun.state_key_hash, ("local",))
        ]
    assert (fleet.keys(), fleet.placed().state_key_hash) == ({}, "")


def test_one_that_fails_its_calls_goes_back_by_itself_and_keeps_what_it_accepted(
    fleet: Fleet, call: Callable[..., Any]
) -> None:
    fleet.place(ledger("singleton"))
    serving(fleet, call)
    with adding(call) as load:
        fleet.host.wait(lambda: len(load.answers) > 100)
        report = fleet.end(fleet.migrate(ledger("singleton", LEDGER_FAILS="0.5")))
        after = time.monotonic()
        fleet.host.wait(lambda: load.answers[-1][0] > after)
    assert report.state == "rolled_back"
    assert "verify: rollback: errors" in report.reason
    assert fleet.instances() == [("Ledger-1", "v1")]
    assert load.last[1] == "Ledger-1"
    assert {who for _, (_, who) in load.answers} == {"Ledger-1", "Ledger-2"}
    assert fleet.keys() == {}
    assert set(call("known")) >= {number for _, (number, _) in load.answers}


def test_a_rehearsal_ends_before_the_cutover_and_the_old_one_serves_all_the_time(
    fleet: Fleet, call: Callable[..., Any]
) -> None:
    fleet.place(ledger("singleton"))
    serving(fleet, call)
    pid, new = fleet.pid("Ledger-1"), ledger("singleton", MARK="new")
    with adding(call) as load:
        fleet.host.wait(lambda: len(load.answers) > 20)
        report = fleet.end(fleet.migrate(new, rehearse=True))
        after = time.monotonic()
        fleet.host.wait(lambda: load.answers[-1][0] > after)
    assert (report.state, load.errors) == ("rehearsed", [])
    assert [row.what for row in report.rows] == ["planned", "start", "copy", "rehearsed"]
    assert "bytes of state are there" in report.reason
    assert {who for _, (_, who) in load.answers} == {"Ledger-1"}
    assert (fleet.instances(), fleet.placed().migration, fleet.pid("Ledger-1")) == ([("Ledger-1", "v1")], "", pid)
    fleet.host.wait(lambda: not fleet.pid("Ledger-2"))
    shim = ShimClient(fleet.host.folder / "runtime")
    [risk] = of_running(fleet.host.consul.client, shim, Asked("Ledger", "local", instance="Ledger-1"))
    assert (risk.source, risk.target, risk.choice) == ("local", "local", "its version changes there")
    assert [each.points for each in risk.contributions if each.name == "rehearsed"] == [-3]

    with adding(call) as load:
        report = fleet.end(fleet.migrate(new))  # what the rehearsal left behind is in nobody's way
    assert (report.state, load.errors, fleet.instances()) == ("finalised", [], [("Ledger-2", "v2")])
    assert set(call("known")) >= {number for _, (number, _) in load.answers}


def test_one_that_never_gets_well_leaves_the_old_one_as_it_was(fleet: Fleet, call: Callable[..., Any]) -> None:
    fleet.place(ledger("singleton"))
    serving(fleet, call)
    with adding(call) as load:
        broken = msgspec.structs.replace(ledger("singleton", MARK="new"), command=("false",), start_timeout_s=1.0)
        broken = msgspec.structs.replace(broken, restart=msgspec.structs.replace(broken.restart, park_after=2))
        report = fleet.end(fleet.migrate(broken))
    assert (report.state, load.errors) == ("rolled_back", [])
    assert "start: Ledger-2 parked" in report.reason
    assert {who for _, (_, who) in load.answers} == {"Ledger-1"}
    assert fleet.instances() == [("Ledger-1", "v1")]


@pytest.mark.parametrize("step", ["start", "copy", "hand over", "verify"])
def test_the_next_shim_goes_on_where_one_that_was_killed_left_it(
    fleet: Fleet, call: Callable[..., Any], step: str
) -> None:
    fleet.place(ledger("singleton"))
    serving(fleet, call)
    migration = fleet.migrate(ledger("singleton", MARK="new"))
    fleet.host.wait(lambda: step in [entry.step for entry in fleet.desk.get(migration).entries])
    fleet.host.end(signal.SIGKILL)
    fleet.host.start()
    fleet.host.wait(lambda: (fleet.host.folder / "runtime" / "outriderd.sock").exists())
    ended = fleet.host.wait(lambda: fleet.desk.get(migration).ended, 60.0)
    assert ended.outcome in ("finalised", "rolled_back")
    assert len(fleet.instances()) == 1
    fleet.host.wait(lambda: [i.instance for i in fleet.host.served("Ledger")] == [fleet.instances()[0][0]])
    call("add", {"number": 1})


def test_of_migrations_that_ended_long_ago_the_last_are_kept(fleet: Fleet, call: Callable[..., Any]) -> None:
    old = [ended(f"m{number:02}", float(number)) for number in range(KEPT_OF_AGENT + 3)]
    for journal in old:
        put_docs(fleet.host.consul.client, [spec_change(journal.spec), entry_change(journal.id, journal.entries[0])])
    fleet.place(ledger("singleton"))
    serving(fleet, call)
    report = fleet.end(fleet.migrate(ledger("singleton", MARK="new")))
    left = [journal.id for journal in old[4:]] + [report.id]
    fleet.host.wait(lambda: [journal.id for journal in fleet.desk.journals()[0]] == left)
    assert report.state == "finalised"


def ended(migration: str, at: float) -> Journal:
    spec = Spec(migration, "Ledger", "cold", End("Ledger-1", "local", "v1"), End("Ledger-2", "local", "v2"), at=at)
    return Journal(spec).followed_by(next_entry(Journal(spec), "ended", at, "local", outcome="cancelled"))


def test_people_pause_approve_and_go_back(fleet: Fleet, call: Callable[..., Any]) -> None:
    fleet.place(ledger("singleton"))
    serving(fleet, call)
    asked = msgspec.structs.replace(QUICK, approvals=1)
    migration = fleet.migrate(ledger("singleton", MARK="new"), asked)
    fleet.host.wait(lambda: "1 more must approve it" in fleet.report(migration).waits)
    fleet.say(migration, "pause")
    fleet.say(migration, "approve")
    fleet.host.wait(lambda: fleet.report(migration).waits == "paused by test")
    fleet.say(migration, "rollback", said="not today")
    report = fleet.end(migration)
    assert (report.state, report.reason, report.approved_by) == ("rolled_back", "not today", ("test",))
    assert [row.by for row in report.rows if row.what == "approved"] == ["test"]


def test_a_new_one_that_dies_with_what_it_accepted_is_revived_and_gives_it_back(
    fleet: Fleet, call: Callable[..., Any]
) -> None:
    fleet.place(ledger("singleton"))
    serving(fleet, call)
    long = Given(verify_s=600.0, undecided="hold")
    migration = fleet.migrate(ledger("singleton", MARK="new"), long)
    fleet.host.wait(lambda: fleet.report(migration).phase == "verify")
    assert call("add", {"number": 7})["instance"] == "Ledger-2"
    os.kill(fleet.pid("Ledger-2"), signal.SIGKILL)
    report = fleet.end(migration)
    assert report.state == "rolled_back"
    assert fleet.instances() == [("Ledger-1", "v1")]
