"""Following a migration by its journal: until it is as far as wanted, or will never be."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from outrider.errors import ConsulConflict, ConsulError
from outrider.migration.staged import follow as module
from outrider.migration.staged.follow import State, follow, followed, reached
from outrider.migration.staged.records import End, Journal, Spec, Strategy, What, next_entry


def journal(*whats: tuple[What, dict[str, Any]], strategy: Strategy = "replicated") -> Journal:
    made = Journal(Spec("m1", "Tool", strategy, End("Tool-1", "old", "v1"), End("Tool-2", "new", "v1"), at=100.0))
    for number, (what, more) in enumerate((("planned", {}), *whats)):
        made = made.followed_by(next_entry(made, what, 100.0 + number, "old", **more))
    return made


def begun(step: str, **more: Any) -> tuple[What, dict[str, Any]]:
    return "begun", {"step": step, **more}


def ended(outcome: str, said: str = "") -> tuple[What, dict[str, Any]]:
    return "ended", {"outcome": outcome, "said": said}


VERDICT = {"verdict": "go", "signals": []}
WHOLE = journal(
    begun("start"), begun("canary"), begun("shift", said="go: well", evidence=VERDICT), begun("verify"),
    ended("finalised", "all is well"),
)  # fmt: skip


class Desk:
    """Answers with one journal after the other, the last for ever."""

    def __init__(self, *answers: Journal | ConsulError) -> None:
        self._answers: Iterator[Journal | ConsulError] = itertools.chain(answers, itertools.repeat(answers[-1]))

    def get(self, migration: str) -> Journal:
        answer = next(self._answers)
        if isinstance(answer, ConsulError):
            raise answer
        return answer


def until(goal: State, *answers: Journal | ConsulError, wait_s: float = 60.0) -> tuple[str, str, list[str]]:
    """State at the end, the problem, and what was said meanwhile."""
    said: list[str] = []
    desk: Any = Desk(*answers)
    found, problem = follow(desk, ["m1"], goal, said.append, wait_s, lambda journal: True)
    return found[0].state, problem, said


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.0)


def part(length: int) -> Journal:
    return replace(WHOLE, entries=WHOLE.entries[:length])


def test_each_entry_is_said_once_as_it_comes() -> None:
    state, problem, said = until("finalised", part(1), part(3), ConsulConflict("lost"), WHOLE)
    assert (state, problem) == ("finalised", "")
    assert said == [
        "Tool: planned", "Tool: prepare: start", "Tool: canary: canary", "Tool: cutover: shift: go: well",
        "Tool: verify: verify", "Tool: finalised: all is well",
    ]  # fmt: skip


def test_a_migration_is_told_with_its_times_and_its_verdict() -> None:
    told = followed(WHOLE)
    assert told.timings == {"start": 1.0, "canary": 1.0, "shift": 1.0, "verify": 1.0}
    assert told.verdict == VERDICT
    assert told.seconds == 5.0
    assert told.reason == "all is well"


@pytest.mark.parametrize(("goal", "length"), [("staged", 2), ("cutover", 5), ("finalised", 6)])
def test_it_is_followed_as_far_as_it_is_wanted(goal: State, length: int) -> None:
    assert not reached(part(length - 1), goal, lambda journal: True)
    assert reached(part(length), goal, lambda journal: True)


def test_staged_is_well_and_with_state_its_state_on_the_way() -> None:
    assert not reached(part(2), "staged", lambda journal: False)
    assert not reached(journal(begun("start"), strategy="state"), "staged", lambda journal: True)
    assert reached(journal(begun("start"), begun("copy"), strategy="state"), "staged", lambda journal: True)


def test_what_went_back_is_a_problem_with_its_reason_once_it_is_back() -> None:
    back = journal(begun("start"), ("rollback", {"said": "it is worse"}))
    assert followed(back).state == "rollback"
    over = journal(begun("start"), ("rollback", {"said": "it is worse"}), ended("rolled_back", "it is worse"))
    state, problem, _ = until("finalised", back, over)
    assert state == "rolled_back"
    assert problem == "Tool: migration m1 is rolled back: it is worse\n  outrider migrate show m1"
    assert until("rolled_back", back, over)[1] == ""


@pytest.mark.parametrize("goal", ["finalised", "rolled_back"])
def test_what_is_held_is_a_problem_at_once_with_both_ways_out(goal: State) -> None:
    held = journal(begun("start"), ("rollback", {"said": "worse"}), ("held", {"said": "it does not give it back"}))
    problem = until(goal, held)[1]
    assert "is held: it does not give it back" in problem
    assert "outrider migrate resolve m1 --keep\n  outrider migrate resolve m1 --back" in problem


def test_one_that_was_too_late_to_go_back_is_a_problem() -> None:
    assert "is finalised" in until("rolled_back", WHOLE)[1]


def test_after_its_time_it_is_left_to_itself_and_named() -> None:
    state, problem, _ = until("finalised", part(3), wait_s=0.0)
    assert state == "running"
    assert problem.startswith("Tool: migration m1 is not there after 0 s, and goes on: running, canary")
    assert "outrider migrate watch m1" in problem


def test_a_consul_that_stays_away_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    with pytest.raises(ConsulError, match="away"):
        until("finalised", part(2), ConsulError("away"))
