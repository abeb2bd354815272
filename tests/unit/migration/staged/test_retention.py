"""Of the migrations that ended some are kept; what has not ended stays, with what it follows."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from outrider.migration.staged.records import End, Journal, Spec, next_entry
from outrider.migration.staged.retention import KEPT, KEPT_OF_AGENT, KEPT_S, outdated

NOW = 1e9
OLD = NOW - KEPT_S - 1.0


def going(migration: str, *after: str, agent: str = "A") -> Journal:
    ends = End(f"{agent}-1", "h1", "v1"), End(f"{agent}-2", "h2", "v1")
    made = Journal(Spec(migration, agent, "singleton", *ends, after=after))
    return made.followed_by(next_entry(made, "planned", 1.0, "me"))


def ended(migration: str, at: float, agent: str = "A") -> Journal:
    made = going(migration, agent=agent)
    return made.followed_by(next_entry(made, "ended", at, "h1", outcome="rolled_back"))


def several(count: int, at: float, agent: str = "A") -> list[Journal]:
    """The first is the oldest."""
    return [ended(f"{agent}{number}", at + number / 1e3, agent) for number in range(count)]


def names(journals: Iterable[Journal]) -> set[str]:
    return {journal.id for journal in outdated(journals, NOW)}


def test_of_each_agent_the_last_are_kept_however_old_they_are() -> None:
    there = several(KEPT_OF_AGENT + 3, OLD - 1.0) + several(KEPT_OF_AGENT, OLD - 1.0, "B")
    assert names(there) == {"A0", "A1", "A2"}


def test_those_of_the_last_days_are_kept_however_many_they_are() -> None:
    assert names(several(3 * KEPT_OF_AGENT, OLD + 2.0)) == set()


def test_of_the_fleet_no_more_are_kept_however_young_they_are() -> None:
    old, young = several(10, NOW - 9.0), several(KEPT - 5, NOW - 5.0, "B")
    assert names(young + old) == {"A0", "A1", "A2", "A3", "A4"}


def test_what_has_not_ended_or_is_broken_stays_with_what_it_follows() -> None:
    there = several(KEPT_OF_AGENT + 4, OLD - 1.0)
    held = going("held", "A0", agent="B")
    held = held.followed_by(next_entry(held, "held", 2.0, "h1", said="why"))
    broken = replace(ended("broken", 1.0, "B"), spec=going("broken", "A1").spec, broken="entry 1 does not follow")
    assert names([*there, held, broken, going("waits", "A2")]) == {"A3"}
