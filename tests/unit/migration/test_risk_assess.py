"""A migration is assessed from documents and observations: what is known counts as it is, the rest as the worst."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from outrider.errors import OutriderError, UnknownAgent
from outrider.fleet.spec import Host
from outrider.host.reports import EventRow, UptimeRow
from outrider.migration.risk.assess import Risk, assess
from outrider.migration.risk.change import Change
from outrider.migration.risk.observed import (
    Observations,
    Outcome,
    Proof,
    Published,
    Question,
    Record,
    Rehearsal,
    Traffic,
)
from outrider.migration.risk.score import BANDS
from outrider.migration.risk.source import SourceFacts
from outrider.migration.staged.by_risk import unmet
from outrider.migration.staged.records import plan_digest
from unit.migration.risk_world import ALIKE, DAY, HOSTS, NOW, calm, factor, published

LEVELS = ("configuration", "kv", "state", "snapshot")
SMALL = SourceFacts(files=1, size=1000, lines=30)


def ask(world: Published, observed: Observations, agent: str = "Web", **more: Any) -> Risk:
    return assess(world, observed, Question(agent, source=SMALL, **more))


def test_a_calm_replica_is_low_and_everything_about_it_is_known(world: Published) -> None:
    found = ask(world, calm())
    assert (found.source, found.target, found.choice) == ("one", "two", "placement would choose it")
    # The judge is blind at half a call a second, which is all that speaks against it.
    assert {each.key: each.points for each in found.contributions if each.points} == {"A3": 3}
    assert (found.points, found.unknown, found.band.name, found.not_known) == (3, 0, "low", ())
    assert "two has" in factor(found, "L7").evidence


def test_a_single_writer_gets_gates_that_are_met_or_not(world: Published) -> None:
    found = ask(world, calm(), "Store")
    assert (found.band.name, found.floor) == ("high", "its state has a single writer")
    gates = {gate.name: gate for gate in found.gates}
    assert list(gates) == ["backup of configuration", "backup of kv", "backup of state", "approval", "judge"]
    assert gates["backup of state"].met is True
    assert gates["backup of state"].evidence == "state b1 on two, restored 1.0 days ago"
    assert gates["backup of kv"].met is False
    assert gates["approval"].wanted == "1 person agrees"
    assert "15 min" in gates["judge"].wanted
    blind = ask(world, replace(calm(), backups=None, silent={"backups": "403"}), "Store")
    assert [(gate.met, gate.evidence) for gate in blind.gates if gate.name.startswith("backup")] == [(None, "403")] * 3


def test_a_critical_one_may_be_done_for_a_day_after_its_very_plan_was_rehearsed(world: Published) -> None:
    two = replace(calm(), traffic=None, uptime=None, environments=None, record=None)  # the worst of each is known
    proved = replace(two, backups={"Store": {level: Proof("b", "two", NOW) for level in LEVELS}})
    there = world.placements["Store"].instances[0].host
    to = "two" if there == "one" else "one"
    moves = {"target": to, "change": Change(400, 9), "readable": False}
    missing = ask(world, proved, "Store", **moves)
    assert (missing.band.name, missing.band.rehearsal) == ("critical", True)
    assert unmet(missing) == [
        f"Store (risk {missing.points}, critical): rehearsal: of this very plan, within a day; {proved.why('outcomes')}"
    ]
    assert unmet(missing, rehearse=True) == []
    plan = plan_digest("Store", "state", (there, "v1"), (to, "v1"))
    done = replace(proved, rehearsals=(Rehearsal("m1", plan, NOW - 3600),))
    found = ask(world, done, "Store", **moves)
    assert (found.points, unmet(found)) == (missing.points - 3, [])
    [gate] = [gate for gate in found.gates if gate.name == "rehearsal"]
    assert (gate.met, gate.evidence) == (True, "by migration m1, 1.0 h ago")
    for other in (
        Rehearsal("m1", plan, NOW - 25 * 3600),
        Rehearsal("m1", plan_digest("Store", "state", (there, "v1"), (to, "v2")), NOW),
    ):
        again = ask(world, replace(done, rehearsals=(other,)), "Store", **moves)
        assert again.points == missing.points
        assert f"`outrider migrate run Store --to {to} --rehearse` does it" in unmet(again)[0]


def test_what_can_only_start_when_the_other_has_ended_can_never_be_rehearsed(world: Published) -> None:
    store = world.agents["Store"]
    cold = replace(store, agent=replace(store.agent, ports={"main": "auto"}))
    found = ask(replace(world, agents={**world.agents, "Store": cold}), calm(), "Store", change=Change(400, 9))
    [gate] = [gate for gate in found.gates if gate.name == "rehearsal"]
    assert (gate.met, gate.evidence[:13]) == (False, "it cannot be:")


def test_what_nobody_saw_takes_the_worst_and_says_why(world: Published) -> None:
    blind = ask(world, Observations(NOW, silent={"record": "no shim answers", "health": "Consul is away"}))
    assert {each.key for each in blind.not_known} == {
        "L3", "L4", "L6", "I4", "I5", "I6", "A1", "A2", "A3", "A4"}  # fmt: skip
    assert all(each.points == each.most for each in blind.not_known)
    assert blind.unknown == sum(each.points for each in blind.not_known)
    assert (factor(blind, "L3").evidence, factor(blind, "I5").evidence) == ("no shim answers", "Consul is away")
    assert factor(blind, "I4").evidence == "nobody asked"
    file = ask(world, Observations(NOW, running=False))
    assert {each.evidence for each in file.not_known} == {"only the fleet file was looked at"}
    assert "A5" in {each.key for each in file.not_known}


def event(what: str, at: float, lasted_s: float = 0.0) -> EventRow:
    return EventRow(at, what, "Web", "Web-1", "one", "died: exit status 1", 0, lasted_s)


@pytest.mark.parametrize(
    ("record", "outcomes", "points", "said"),
    [
        (Record(NOW - 100 * DAY, (event("critical", NOW - 8 * DAY),)), (), 2, "8 days ago"),
        (Record(NOW - 100 * DAY, (event("passing", NOW - DAY),)), (), 0, "none on record"),
        (Record(NOW - 100 * DAY), (Outcome("Web", "two", True, NOW - 2 * DAY),), 3, "2 days ago"),
        # What was before the record began, nobody knows.
        (Record(NOW - 12 * DAY), (), 2, "none in 12.0 days of record"),
        (Record(NOW), (), 3, "none in 0.0 days of record"),
    ],
)
def test_the_last_incident_is_an_event_or_a_failed_migration(
    world: Published, record: Record, outcomes: tuple[Outcome, ...], points: int, said: str
) -> None:
    found = factor(ask(world, replace(calm(), record=record, outcomes=outcomes)), "L3")
    assert (found.points, found.said) == (points, said)


def test_the_failure_rate_is_of_the_last_twenty_of_this_agent_or_onto_this_host(world: Published) -> None:
    failed = [Outcome("Web", "two", True, NOW - 9 * DAY)] * 5
    fine = [Outcome("Other", "two", False, NOW - DAY)] * 20
    elsewhere = [Outcome("Other", "one", True, NOW - DAY)] * 9
    assert factor(ask(world, replace(calm(), outcomes=(*failed, *fine, *elsewhere))), "L4").points == 0
    found = factor(ask(world, replace(calm(), outcomes=(*fine, *failed))), "L4")
    assert (found.points, found.evidence[:7]) == (3, "5 of 20")
    assert factor(ask(world, replace(calm(), outcomes=())), "L4").said == "10%"


def test_the_way_back_is_a_rollback_or_else_a_start(world: Published) -> None:
    slow = tuple(Outcome("Web", "two", False, NOW, seconds) for seconds in (1.0, 6.0))
    assert factor(ask(world, replace(calm(), outcomes=slow)), "I6").points == 1
    starts = (event("starting", NOW - 9), event("holder", NOW - 8), event("passing", NOW - 7, 2.0),
              event("critical", NOW - 5, 2.0), event("passing", NOW - 1, 99.0))  # fmt: skip
    found = factor(ask(world, replace(calm(), outcomes=(), record=Record(NOW - DAY, starts))), "I6")
    assert (found.said, found.evidence) == ("2.0 s at p95", "no rollback of it is on record, but 1 start")
    assert not factor(ask(world, replace(calm(), outcomes=())), "I6").measured


def test_what_is_otherwise_on_the_target_is_counted_and_named(world: Published) -> None:
    other = {"one": ALIKE, "two": {**ALIKE, "driver": "570.86", "gpu": "NVIDIA H200"}}
    found = factor(ask(world, replace(calm(), environments=other)), "L6")
    assert (found.points, found.evidence) == (2, "gpu none to NVIDIA H200; driver none to 570.86")
    old_shim = {"one": ALIKE, "two": {"host": "two"}}
    assert factor(ask(world, replace(calm(), environments=old_shim)), "L6").points == 3
    gone = factor(ask(world, replace(calm(), environments={"one": ALIKE})), "L6")
    assert (gone.measured, gone.evidence) == (False, "no shim tells what two is like")


def test_with_a_target_an_instance_that_is_not_there_is_meant(world: Published) -> None:
    for target, source in (("one", "two"), ("two", "one")):
        assert ask(world, calm(), target=target).source == source
    assert ask(world, calm(), "Pinned", target="one").choice == "it is asked to stay there"


def test_an_agent_that_may_run_on_one_host_alone_stays_there(world: Published) -> None:
    found = ask(world, replace(calm(), environments=None), "Pinned")
    assert (found.source, found.target, found.choice) == ("one", "one", "it may run on one alone")
    assert (factor(found, "L6").said, found.stop) == ("0 changes", "")


def test_a_target_that_cannot_take_it_is_refused_whatever_the_points(world: Published) -> None:
    found = ask(world, calm(), "Pinned", target="two")
    assert (found.band.name, found.stop, found.gates) == ("no-go", "two: is not among the hosts of Pinned", ())
    drained = {**world.hosts, "two": replace(world.hosts["two"], state="drained", reason="disk")}
    assert ask(replace(world, hosts=drained), calm(), "Web", target="two").stop == "two: is drained: disk"
    with pytest.raises(OutriderError, match="no host three"):
        ask(world, calm(), target="three")
    with pytest.raises(UnknownAgent, match="no agent Wbe"):
        ask(world, calm(), "Wbe")


def test_room_is_what_is_left_with_the_new_one_there(tmp_path: Path) -> None:
    small = (HOSTS[0], Host("two", cpu=16, memory_mib=2560))
    found = factor(ask(published(tmp_path, small), calm(), "Store", target="two"), "L7")
    assert (found.said, found.points) == ("20%", 1)
    unsaid = factor(ask(published(tmp_path, (HOSTS[0], Host("two"))), calm(), "Store", target="two"), "L7")
    assert (unsaid.measured, unsaid.points) == (False, 3)


def test_a_single_writer_without_a_holder_is_not_moved(world: Published) -> None:
    for leases in ({}, {"Store": ""}):
        found = ask(world, replace(calm(), leases=leases), "Store")
        assert found.stop == "nobody holds its lease: who writes its state is not known"
    unread = replace(calm(), leases=None, silent={"leases": "403"})
    assert ask(world, unread, "Store").stop == "who holds its lease is not known: 403"
    assert ask(world, Observations(NOW, running=False), "Store").stop == ""
    assert ask(world, replace(calm(), leases={}), "Web").stop == ""


@pytest.mark.parametrize(
    ("change", "readable", "lines", "files", "one_way"),
    [
        (None, None, 0, 0, (True, 0)),
        (Change(51, 2), True, 2, 1, (True, 0)),
        (Change(51, 2), None, 2, 1, (False, 5)),
        (Change(3, 7, ("model.onnx",)), False, 4, 2, (True, 5)),
    ],
)
def test_a_new_version_counts_by_its_lines_files_and_whether_there_is_a_way_back(
    world: Published, change: Change | None, readable: bool | None, lines: int, files: int, one_way: tuple[bool, int]
) -> None:
    found = ask(world, calm(), "Store", change=change, readable=readable)
    assert (factor(found, "L1").points, factor(found, "L2").points) == (lines, files)
    assert (factor(found, "A6").measured, factor(found, "A6").points) == one_way
    assert factor(ask(world, calm(), "Web", change=change), "A6").points == 0  # it keeps no files


def test_calls_seen_on_one_host_alone_are_no_measure_unless_they_are_many(world: Published) -> None:
    few = {"Web": Traffic(3, 100, 0, "this host", "calls from 1 other hosts are not")}
    found = factor(ask(world, replace(calm(), traffic=few)), "I4")
    assert (found.measured, found.evidence) == (
        False, "3.0 calls/s are seen (this host), but calls from 1 other hosts are not")  # fmt: skip
    many = {"Web": replace(few["Web"], per_s=60.0)}
    assert factor(ask(world, replace(calm(), traffic=many)), "I4").measured


def test_the_judge_is_asked_whether_the_calls_are_enough(world: Published) -> None:
    # Where half of the calls fail, ten times as many cannot be.
    for per_s, failed, points in ((1000.0, 0, 0), (100.0, 500, 0), (20.0, 500, 3), (0.0, 50_000, 3)):
        traffic = {"Web": Traffic(per_s, 1e5, failed, "test", peak_per_s=2000.0)}
        assert factor(ask(world, replace(calm(), traffic=traffic)), "A3").points == points
    assert factor(ask(world, replace(calm(), traffic={"Web": Traffic(9, 0, 0, "test")})), "A3").points == 3


@pytest.mark.parametrize(
    ("row", "measured", "points"),
    [
        (UptimeRow("Web", {}, 10 * DAY, 10 * DAY * 0.001 * 0.95), True, 3),
        (UptimeRow("Web", {}, 10 * DAY, 10 * DAY * 0.001 * 0.5), True, 0),
        (UptimeRow("Web", {}, 3600.0, 0.0), False, 3),
    ],
)
def test_the_error_budget_is_what_a_thousandth_of_the_observed_time_leaves(
    world: Published, row: UptimeRow, measured: bool, points: int
) -> None:
    found = factor(ask(world, replace(calm(), uptime={"Web": row})), "A2")
    assert (found.measured, found.points) == (measured, points)


@pytest.mark.parametrize(
    ("proofs", "points", "evidence"),
    [
        ({"state": Proof("b", "two", NOW - 8 * DAY)}, 3, "state b on two, restored 8.0 days ago"),
        ({"state": Proof("b", "two", NOW + 3 * DAY)}, 3, "state b on two, restored -3.0 days ago"),
        ({"state": Proof("b", "two"), "kv": Proof("k", "two", NOW)}, 3, "no backup of level state was ever proved"),
        ({}, 3, "no backup of level state was ever proved"),
        ({"state": Proof("b", "two", NOW - 6 * DAY)}, 0, "state b on two, restored 6.0 days ago"),
    ],
)
def test_state_wants_a_proof_of_its_state(
    world: Published, proofs: dict[str, Proof], points: int, evidence: str
) -> None:
    found = factor(ask(world, replace(calm(), backups={"Store": proofs}), "Store"), "A1")
    assert (found.points, found.measured, found.evidence) == (points, True, evidence)


def test_near_the_daily_peak_nothing_is_moved_lightly(world: Published) -> None:
    for peak, points in ((10.0, 0), (0.6, 2), (0.0, 2), (None, 2)):
        traffic = {"Web": Traffic(0.5, 10, 0, "test", peak_per_s=peak)}
        assert factor(ask(world, replace(calm(), traffic=traffic)), "A4").points == points
    still = {"Web": Traffic(0.0, 10, 0, "test", peak_per_s=0.0)}
    assert factor(ask(world, replace(calm(), traffic=still)), "A4").points == 0


def test_a_need_that_is_being_changed_is_seen_in_its_placement(world: Published) -> None:
    [placed] = world.placements["Store"].instances
    for instances in ((placed, replace(placed, host="two")), (replace(placed, version="v0"),)):
        moved = {**world.placements, "Store": replace(world.placements["Store"], instances=instances)}
        found = factor(ask(replace(world, placements=moved), calm()), "A5")
        assert (found.points, found.evidence) == (2, "Store is being changed")


def test_forgetting_any_fact_never_lowers_the_band(tmp_path: Path) -> None:
    """Random worlds, seeded: each observation is taken away in turn."""
    world, chance = published(tmp_path), random.Random(20)
    for _ in range(100):
        observed = _random_day(chance)
        agent = chance.choice(("Store", "Web", "Pinned"))
        change = chance.choice((None, Change(chance.randrange(3000), chance.randrange(9))))
        whole = ask(world, observed, agent, change=change, readable=chance.choice((True, None)))
        for name in ("health", "leases", "environments", "traffic", "record", "uptime", "outcomes", "backups"):
            less = ask(world, replace(observed, **{name: None}), agent, change=change,
                       readable=True if factor(whole, "A6").measured else None)  # fmt: skip
            assert less.points >= whole.points, (name, msgspec.to_builtins(whole))
            assert BANDS.index(less.band) >= BANDS.index(whole.band)


def _random_day(chance: random.Random) -> Observations:
    names = ("Store", "Web", "Pinned")
    events = tuple(
        EventRow(NOW - chance.uniform(0, 120) * DAY, chance.choice(("critical", "passing", "starting")),
                 chance.choice(names), "x-1", "one", "", 0, chance.uniform(0, 9))
        for _ in range(chance.randrange(6))
    )  # fmt: skip
    outcomes = tuple(
        Outcome(chance.choice(names), chance.choice(("one", "two")), chance.random() < 0.2, NOW - chance.uniform(0, 60))
        for _ in range(chance.randrange(30))
    )
    return replace(
        calm(),
        health={name: chance.randrange(4) for name in names},
        environments={host: {**ALIKE, "kernel": chance.choice(("6.1", "6.2"))} for host in ("one", "two")},
        traffic={
            name: Traffic(chance.uniform(0, 300), chance.uniform(0, 1e5), 0, "test", peak_per_s=chance.uniform(0, 300))
            for name in names
        },
        record=Record(NOW - 120 * DAY, events),
        outcomes=outcomes,
        backups={name: {"state": Proof("b", "two", NOW - chance.uniform(0, 14) * DAY)} for name in names},
    )
