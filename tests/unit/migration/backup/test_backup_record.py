"""How an agent stands: which of the wanted levels were restored in time."""

from __future__ import annotations

from outrider.migration.backup.record import WEEK_S, Kept, stands

NOW = 1_800_000_000.0


def kept(age_s: float) -> Kept:
    return Kept("A.kv.x", "h1", NOW - age_s, 10)


def test_all_in_time_is_proven_and_as_old_as_the_oldest() -> None:
    standing = stands("A", {"kv": kept(10), "state/A-1": kept(50)}, ["kv", "state/A-1"], within_s=WEEK_S, now=NOW)
    assert (standing.proven, standing.age_s, standing.measure().value) == (True, 50.0, 0)
    assert "A.kv.x on h1" in standing.measure().evidence


def test_one_that_is_too_old_or_not_there_is_lacking() -> None:
    known = {"kv": kept(WEEK_S + 1)}
    standing = stands("A", known, ["kv", "configuration"], within_s=WEEK_S, now=NOW)
    assert (standing.proven, standing.age_s, standing.measure().value) == (False, None, 1)
    assert standing.lacking["configuration"] == "no backup is known"
    assert standing.lacking["kv"] == "A.kv.x on h1 was last restored 7.0 days ago"


def test_the_very_edge_is_in_time() -> None:
    assert stands("A", {"kv": kept(WEEK_S)}, ["kv"], within_s=WEEK_S, now=NOW).proven


def test_nothing_wanted_is_proven() -> None:
    assert stands("A", {}, [], within_s=WEEK_S, now=NOW).proven
