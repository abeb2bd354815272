"""A machine that is slow for the old one too says nothing of the new one; a new one that is slow alone goes back."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from outrider.calls.tally import BOUNDS
from outrider.migration.staged.beside import Beside, looked
from outrider.migration.staged.machine import next_action
from outrider.migration.staged.sight import Action, Counts, End, GoBack, Wait
from outrider.migration.staged.story import Story
from unit.migration.staged.test_machine import held_by, sight, spec

CALLS, LOOK_S, VERIFY_S = 20, 0.1, 4.0  # calls in a look, as at 200 a second
CALL_S, ANSWER_S = 0.0015, 0.0003
RUNS = 40
Slower = Callable[[float], float]


def steady(at: float) -> float:
    del at
    return 1.0


def between(since: float, until: float, factor: float) -> Slower:
    return lambda at: factor if since <= at < until else 1.0


class World:
    """Two instances that are called and asked; each answers slower by what is given, at the time of a call."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.at = 0.0

    def takes(self, usual_s: float, slower: Slower, at: float) -> float:
        return usual_s * slower(at) * self.chance.lognormvariate(0.0, 0.4)

    def called(self, before: Counts, slower: Slower, count: int = CALLS) -> Counts:
        buckets = [*before.buckets] or [0] * (len(BOUNDS) + 1)
        for number in range(count):
            took_s = self.takes(CALL_S, slower, self.at - LOOK_S * (1 - (number + 1) / count))
            buckets[bisect_left(BOUNDS, took_s)] += 1
        return Counts(before.calls + count, 0, tuple(buckets))

    def judged(self, new: Slower, old: Slower | None, undecided: Any = "hold") -> tuple[Action, float]:
        """The first action that is no wait, or that of the end, and when. `old` None: nobody asks the old one."""
        of = spec(undecided=undecided, verify_s=VERIFY_S)
        story = Story(step="verify", evidence={"start": {"baseline": msgspec.to_builtins(BASELINE)}})
        beside, counts = Beside(), Counts()
        for _ in range(10):
            told = None if old is None else self.takes(ANSWER_S, steady, 0.0)
            beside = looked(beside, "usual", told, counts, BASELINE)
        began = counts = self.called(counts, steady, 5)
        beside = looked(beside, "judge", None if old is None else ANSWER_S, counts, BASELINE)
        while True:
            self.at += LOOK_S
            counts = self.called(counts, new)
            told = None if old is None else self.takes(ANSWER_S, old, self.at)
            beside = looked(beside, "judge", told, counts, BASELINE)
            seen = {"aside": beside.aside, "worst": beside.worst, "waited_for": began, "waited_s": self.at}
            action = next_action(of, story, sight(of, counts={"A-2": counts}, **seen, **held_by("A-2")), 0.0)
            if not isinstance(action, Wait) or self.at >= VERIFY_S:
                return action, self.at


BASELINE = World(-1).called(Counts(), steady, 2_000)


def share(what: type, new: Slower, old: Slower | None, undecided: Any = "hold") -> float:
    found = [World(seed).judged(new, old, undecided)[0] for seed in range(RUNS)]
    return sum(isinstance(action, what) for action in found) / RUNS


@pytest.mark.parametrize(("factor", "wrong"), [(4.0, 0.1), (10.0, 0.0), (50.0, 0.0)])
def test_a_machine_that_is_slow_for_both_in_the_middle_does_not_lead_back(factor: float, wrong: float) -> None:
    busy = between(0.3, 1.3, factor)
    assert share(GoBack, busy, busy) <= wrong
    assert share(End, busy, busy) >= 0.8  # and once it is over the new one is found well
    assert share(GoBack, busy, None) >= 0.9  # which is what the old one is asked for


def test_one_moment_in_which_nothing_runs_does_not_lead_back_though_nobody_was_asked_then() -> None:
    assert share(GoBack, between(0.12, 0.18, 50.0), steady) == 0.0


@pytest.mark.parametrize(("factor", "looks"), [(2.0, 14), (3.0, 4), (20.0, 4)])
def test_one_that_is_slow_alone_goes_back_and_soon(factor: float, looks: int) -> None:
    worse = between(0.0, 1e9, factor)
    found = [World(seed).judged(worse, steady) for seed in range(RUNS)]
    assert all(isinstance(action, GoBack) for action, _ in found)
    assert sorted(round(at / LOOK_S) for _, at in found)[int(0.9 * RUNS)] <= looks


def test_a_healthy_one_is_found_well_and_as_soon() -> None:
    found, before = ([World(seed).judged(steady, old) for seed in range(RUNS)] for old in (steady, None))
    assert all(isinstance(action, End) for action, _ in found)
    assert sum(at for _, at in found) <= 1.2 * sum(at for _, at in before)


def test_what_is_slow_to_the_end_with_its_machine_is_left_to_a_person() -> None:
    busy = between(0.0, 1e9, 8.0)
    for undecided in ("hold", "accept"):
        action, _ = World(1).judged(busy, busy, undecided)
        assert isinstance(action, Wait), undecided
        assert action.person
    assert isinstance(World(1).judged(busy, busy, "rollback")[0], GoBack)


def test_an_old_one_that_is_not_well_is_no_yardstick() -> None:
    few, many = Counts(10, 0, (10,)), Counts(30, 0, (30,))
    beside = looked(Beside(), "judge", None, few, None)
    assert looked(beside, "judge", None, many, None).aside == Counts()
    assert looked(beside, "judge", 60.0, many, None).aside == Counts(20, 0, (20,))
    assert looked(beside, "rest", 60.0, many, None) == Beside()
