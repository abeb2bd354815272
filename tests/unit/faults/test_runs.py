"""What the kept runs of the fault suite say together."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import runs
from faults.injected import FAULTS
from faults.observer import Verdict
from faults.runs import Run, bound, keep, kept, report, spans, table
from faults.suite import chosen

GAPS = {"Counter": 0.1, "Ledger": 0.2, "Lone": 0.3, "Echo": 0.4}


def a_run(seed: int, *faults: str, violations: tuple[str, ...] = (), well_s: float = 2.0) -> Run:
    return Run(seed, faults, well_s, Verdict(list(violations), longest_gap_s=GAPS), "c0de")


def test_each_fault_is_a_seed_of_its_own_and_the_later_seeds_are_pairs() -> None:
    names = list(FAULTS)
    assert [chosen(seed) for seed in range(len(names))] == [(name,) for name in names]
    pairs = [chosen(seed) for seed in range(len(names), 400)]
    assert all(len(set(pair)) == 2 for pair in pairs)
    assert {name for pair in pairs for name in pair} == set(names)
    assert pairs == [chosen(seed) for seed in range(len(names), 400)]


def test_runs_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "KEPT", tmp_path / "build/faults.jsonl")
    assert kept() == []
    first, second = a_run(0, "wipe"), a_run(30, "wipe", "starve")
    keep(first)
    keep(second)
    assert kept() == [first, second]


def test_the_bound_is_that_of_the_runs_without_a_violation() -> None:
    assert bound(200) == pytest.approx(0.0149, abs=1e-4)
    assert bound(1) == pytest.approx(0.95)
    said = report([a_run(0, "wipe"), a_run(1, "starve"), a_run(7, "wipe", "flap")])
    assert said[0].startswith("3 runs with 4 faults, 0 of them with violations: fewer than 63.16% of such runs")
    assert said[1:] == ["seeds 0 to 1, 7", "of code c0de: 0 to 1, 7"]


def test_a_violation_is_said_and_there_is_no_bound_then() -> None:
    said = report([a_run(0, "wipe", violations=("Counter: two holders",)), a_run(1, "starve")])
    assert said[0] == "2 runs with 2 faults, 1 of them with violations"
    assert said[-1] == "VIOLATION seed 0, wipe: Counter: two holders"


def test_seeds_are_told_in_spans() -> None:
    assert spans([3, 1, 2, 2, 9]) == "1 to 3, 9"
    assert spans([]) == ""


def test_the_table_has_a_row_for_each_fault() -> None:
    rows = table([a_run(0, "wipe"), a_run(1, "wipe", well_s=4.0), a_run(2, "wipe", "starve")])
    assert len(rows) == 2 + len(FAULTS)
    found = next(row for row in rows if row.startswith("| Consul's data lost"))
    assert found.endswith("| 2 | 1 | 3.0, 4.0 | 0.10 | 0.20 | 0.30 | 0.40 | - |")
