"""What people say counts for what they were asked."""

from __future__ import annotations

from typing import Any

import pytest

from outrider.errors import MigrationRefused
from outrider.migration.staged import desk
from outrider.migration.staged.records import Journal, Question, What, next_entry
from outrider.migration.staged.report import report_of
from outrider.migration.staged.sight import Counts, End, Wait
from outrider.migration.staged.steps import FORWARD
from outrider.migration.staged.story import CUTOVERS, JUDGED, story_of
from unit.migration.staged.test_machine import act, held_by, sight, spec

FEW = Counts(3, 0, (3,))
Line = tuple[What, dict[str, Any]]


def journal(*lines: Line, **policy: Any) -> Journal:
    found = Journal(spec(**policy))
    for what, more in lines:
        found = found.followed_by(next_entry(found, what, 1.0, **({"by": "h1"} | more)))
    return found


def begun(*steps: str) -> list[Line]:
    return [("begun", {"step": step}) for step in steps]


def approved(by: str, approves: Question | None) -> Line:
    return "approved", {"by": by, "approves": approves}


def test_a_second_approval_of_the_cutover_that_comes_late_decides_no_verdict() -> None:
    ready = [*begun("start", "approval"), approved("ann", "cutover"), *begun("hand over", "verify")]
    undecided = {"counts": {"A-2": FEW}, "waited_s": 1e6, **held_by("A-2")}
    late = journal(*ready, approved("bob", "cutover"), approved("eve", None), approvals=1)
    waits = act(late.spec, story_of(late), sight(late.spec, **undecided))
    assert isinstance(waits, Wait)
    assert (waits.person, "`outrider migrate approve m --verdict`" in waits.why) == (True, True)
    assert story_of(late).approved_by == ("ann",)
    decided = late.followed_by(next_entry(late, "approved", 2.0, "bob", approves="verdict"))
    assert isinstance(act(late.spec, story_of(decided), sight(late.spec, **undecided)), End)


def test_a_verdict_that_was_approved_is_not_that_of_another_cutover() -> None:
    again = journal(
        *begun("start"), approved("ann", "verdict"), *begun("close", "open", "verify"), approved("ann", "verdict"),
        ("rollback", {}), ("held", {}), ("resolved", {"resolution": "keep"}), *begun("close", "open", "verify"),
        strategy="cold",
    )  # fmt: skip
    assert not story_of(again).verdict_approved
    assert story_of(again).approved_by == ()


@pytest.mark.parametrize(
    ("lines", "asks", "says"),
    [
        ([], "cutover", "it is not judged yet"),
        (begun("start", "copy", "approval"), "cutover", "it is not judged yet"),
        (begun("start", "hand over"), None, "has begun already"),
        (begun("start", "hand over", "verify"), "verdict", "has begun already"),
        ([*begun("start", "hand over", "verify"), ("rollback", {"said": "worse"})], None, "goes back already: worse"),
    ],
)
def test_only_what_is_asked_can_be_approved(lines: list[Line], asks: Question | None, says: str) -> None:
    there = journal(*lines)
    assert story_of(there).asks == asks
    if asks:
        entry = desk._approved(there, "ann", "", asks)(2.0)
        assert (entry.what, entry.approves) == ("approved", asks)
    other: Question = "verdict" if asks == "cutover" else "cutover"
    with pytest.raises(MigrationRefused) as refused:
        desk._approved(there, "ann", "", other)
    assert says in refused.value.problems[0]
    assert ("--verdict" in str(refused.value.hint)) == (asks == "verdict")


def test_the_next_commands_approve_what_is_asked_and_the_journal_says_what_was() -> None:
    judged = journal(*begun("start"), approved("ann", "cutover"), *begun("hand over", "verify"), approvals=1)
    report = report_of(judged, 2.0)
    assert report.rows[1].said == "the cutover"
    assert "outrider migrate approve m --verdict" in report.next
    assert "outrider migrate approve m" in report_of(journal(*begun("start")), 2.0).next
    passing = report_of(journal(*begun("start", "hand over")), 2.0).next
    assert not any("approve" in command for command in passing)


def test_the_steps_that_are_named_are_those_of_the_tables() -> None:
    steps = [step for table in FORWARD.values() for step in table]
    assert {step.name for step in steps if step.gate} == set(CUTOVERS)
    assert {step.name for step in steps if step.phase == "verify"} == {JUDGED}
