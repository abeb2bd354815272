"""A few faults of the suite (`make faults` runs them all), and what an operator does to a fleet that is called."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from faults.observer import SINGLETONS, Accepted, Observer, Seen, _lost, _overlaps, judge
from faults.suite import hurt, line_of, well
from hosts.fleet import Fleet, until

SEED = 1
SHORT = (
    ("kill_holder",),
    ("stop_holder",),
    ("freeze_leader", "kill_holder"),
    ("power_off",),
    ("cut_link",),
    ("freeze_shim",),
)


@pytest.mark.parametrize("faults", SHORT, ids="+".join)
def test_there_are_never_two_holders_and_nothing_acknowledged_is_lost(small: Fleet, faults: tuple[str, ...]) -> None:
    run = hurt(small, SEED, *faults)
    print(line_of(run))
    assert run.verdict.violations == []
    assert all(run.verdict.answered[agent] > 50 for agent in SINGLETONS)


def test_a_host_is_drained_without_a_failed_call(small: Fleet, tmp_path: Path) -> None:
    until(lambda: well(small), 120, small.what_is_wrong)
    host = next(row["host"] for row in small.status("lab4")["instances"] if row["agent"] == "Lone")
    if host == "lab4":  # the observer calls from there
        small.on("lab1", "outrider drain lab4 && outrider undrain lab4")
        host = next(row["host"] for row in small.status("lab4")["instances"] if row["agent"] == "Lone")
    observer = Observer(small, "lab4", "drained", tmp_path / "seen")
    try:
        small.on("lab1", f"outrider drain {host} --reason test")
        rows = small.status("lab4")["instances"]
        assert host not in {row["host"] for row in rows if row["status"] == "passing"}
    finally:
        small.on("lab1", f"outrider undrain {host}")
        until(lambda: well(small), 120, small.what_is_wrong)
        seen = observer.stop()
    verdict = judge(small, seen)
    assert verdict.violations == []
    assert verdict.errors == {}


def test_a_starved_fleet_fails_nothing_over(small: Fleet) -> None:
    until(lambda: well(small), 120, small.what_is_wrong)
    before = _epochs(small)
    run = hurt(small, SEED, "starve")
    print(line_of(run))
    assert run.verdict.violations == []
    assert _epochs(small) == before


def test_shims_are_restarted_one_after_the_other_and_nothing_fails_over(small: Fleet) -> None:
    until(lambda: well(small), 120, small.what_is_wrong)
    before = _epochs(small)
    for host in small.lab.machines():
        small.on(host, "systemctl restart outriderd")
        until(lambda: well(small), 60, small.what_is_wrong)
    assert _epochs(small) == before


def _epochs(fleet: Fleet) -> dict[str, int]:
    return {
        agent: json.loads(json.dumps(fleet.consul("lab4", f"kv/outrider/leases/{agent}?raw")[1]))["epoch"]
        for agent in SINGLETONS
    }


def test_the_judge_finds_what_it_is_there_for() -> None:
    now = time.monotonic_ns()
    one, other = Accepted("t1", 5, "A-1", now), Accepted("t2", 6, "A-2", now + 1)
    assert list(_overlaps([one, other])) == []
    assert list(_overlaps([other, one]))
    assert list(_overlaps([one, Accepted("t3", 5, "A-2", now)]))
    assert list(_overlaps([Accepted("t4", 0, "A-1", now)]))
    answered = Seen("A", "t1", now, now, 5, "A-1")
    assert list(_lost([one, other], [answered])) == []
    assert list(_lost([other], [answered]))
    assert list(_lost([one, one], [answered]))
