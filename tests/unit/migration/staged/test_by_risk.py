"""What a risk makes of a migration: its policy, what the journal keeps, and what forbids it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from outrider.errors import MigrationRefused
from outrider.fleet.spec import Agent
from outrider.migration.risk.assess import Gate, Risk
from outrider.migration.risk.gather import outcome_of, plans_rehearsed, rehearsal_of
from outrider.migration.risk.score import BANDS, Contribution
from outrider.migration.risk.survey import Asked
from outrider.migration.staged import by_risk as module
from outrider.migration.staged.by_risk import note_of, policy_of, unmet
from outrider.migration.staged.plan import Ask
from outrider.migration.staged.records import End, Given, Journal, Policy, Spec, next_entry
from outrider.registry.layout import AgentDoc

HIGH = next(band for band in BANDS if band.name == "high")


def risk(**more: Any) -> Risk:
    said = (Contribution("I1", "state", 3, 4, "single writer", "", measured=True),
            Contribution("L1", "change size", 0, 4, "none", "", measured=True))  # fmt: skip
    base: dict[str, Any] = {name: "" for name in Risk.__struct_fields__} | {
        "agent": "A", "points": 17, "band": HIGH, "contributions": said, "gates": ()}  # fmt: skip
    return Risk(**(base | more))


def test_the_band_says_how_it_is_judged_and_who_must_agree() -> None:
    assert policy_of(risk()) == Policy(verify_s=900, undecided="hold", approvals=1)
    assert Given(verify_s=5.0).over(policy_of(risk())) == Policy(verify_s=5.0, undecided="hold", approvals=1)
    assert note_of(risk()).said == ("I1 state +3: single writer",)
    assert note_of(risk(), "no time").said[-1] == "overridden: no time"


def test_a_gate_that_is_not_met_stops_it_unless_somebody_says_why_not() -> None:
    missing, unknown = Gate("backup of state", "proved", False, "none"), Gate("approval", "1 person agrees", None)
    of = risk(gates=(missing, unknown))
    assert unmet(of) == ["A (risk 17, high): backup of state: proved; none"]
    assert unmet(of, approved="no time") == []
    assert unmet(risk(gates=(replace(missing, met=True), unknown))) == []


def test_a_rehearsal_need_not_be_rehearsed_but_needs_the_rest() -> None:
    gates = (Gate("backup of kv", "proved", False), Gate("rehearsal", "within a day", False, "it never was"))
    assert unmet(risk(gates=gates)) == [
        "A (risk 17, high): backup of kv: proved",
        "A (risk 17, high): rehearsal: within a day; it never was",
    ]
    assert unmet(risk(gates=gates), rehearse=True) == ["A (risk 17, high): backup of kv: proved"]
    assert unmet(risk(gates=gates[1:]), rehearse=True) == []


def test_only_a_rehearsal_that_went_well_counts_for_a_day_and_no_rehearsal_is_a_migration() -> None:
    spec = Spec("m", "A", "singleton", End("A-1", "h1", "v1"), End("A-2", "h2", "v1"), rehearse=True)
    well, badly = (
        Journal(spec, (next_entry(Journal(spec), "ended", 100.0, "h1", outcome=outcome),))
        for outcome in ("rehearsed", "rolled_back")
    )
    assert (outcome_of(well), outcome_of(badly)) == (None, None)
    assert (rehearsal_of(badly), rehearsal_of(Journal(spec))) == (None, None)
    assert plans_rehearsed([well, badly], 100.0 + 86400) == {spec.plan}
    assert plans_rehearsed([well], 101.0 + 86400) == frozenset()


def test_the_question_is_about_the_plan_and_a_rehearsal_is_admitted_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Asked] = []
    gates = (Gate("rehearsal", "within a day", False, "it never was"),)

    def of_running(consul: object, shim: object, what: Asked, **more: object) -> list[Risk]:
        asked.append(what)
        return [risk(gates=gates)]

    monkeypatch.setattr(module, "of_running", of_running)
    nothing: Any = None
    judged = module.by_risk(nothing, nothing)
    doc = AgentDoc("A", "f", Agent(), "v2")
    spec = Spec("m", "A", "singleton", End("A-1", "h1", "v1"), End("A-2", "h1", "v2"))
    ask = Ask("A", "me", doc=doc, readable=True, rehearse=True)
    assert judged(ask, spec)[1].points == 17
    assert asked == [Asked("A", "h1", readable=True, instance="A-1", doc=doc)]
    with pytest.raises(MigrationRefused, match="rehearsal: within a day; it never was"):
        judged(replace(ask, rehearse=False), spec)


def test_what_cannot_be_done_is_not_overridden() -> None:
    assert unmet(risk(stop="nobody holds its lease"), approved="no time") == ["A: nobody holds its lease"]
    refused = risk(points=40, band=BANDS[-1])
    assert "40 points" in unmet(refused)[0]
    assert unmet(refused, approved="two of us agreed") == []


@pytest.mark.parametrize(
    ("whats", "failed", "way_back_s"),
    [
        (["begun", "ended:finalised"], False, None),
        (["begun", "rollback", "ended:rolled_back"], True, 1.0),
        (["begun", "asked_back", "rollback", "ended:rolled_back"], False, 1.0),
        (["ended:cancelled"], None, None),
        (["begun"], None, None),
    ],
)
def test_history_is_read_from_the_journals(whats: list[str], failed: bool | None, way_back_s: float | None) -> None:
    journal = Journal(Spec("m", "A", "singleton", End("A-1", "h1", "v1"), End("A-2", "h2", "v1")))
    for at, each in enumerate(whats):
        what, _, outcome = each.partition(":")
        more = {"outcome": outcome} if outcome else {}
        entry = msgspec.convert(msgspec.to_builtins(next_entry(journal, "begun", float(at), "h1")) | more | {
            "what": what}, type(next_entry(journal, "begun", 0.0, "")))  # fmt: skip
        journal = journal.followed_by(entry)
    found = outcome_of(journal)
    assert (found.failed if found else None) is failed
    assert (found.way_back_s if found else None) == way_back_s
