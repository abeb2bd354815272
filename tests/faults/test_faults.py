"""A few faults of the suite (`make faults` runs them all), and what an operator does to a fleet that is called."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from faults.observer import (
    FENCED,
    SINGLETONS,
    Accepted,
    Observer,
    Seen,
    Worked,
    _at_once,
    _lost,
    _overlaps,
    judge,
    written,
)
from faults.runs import line_of
from faults.scene import Scene
from faults.small import well, well_for_good
from faults.suite import hurt, moved, observed
from hosts.fleet import Fleet, until

SEED = 1
# As many as make a short test; starve and restart_shim also say whether anything failed over without need.
SHORT = (
    ("kill_holder",),
    ("stop_holder", "freeze_leader"),
    ("power_off",),
    ("wipe",),
    ("starve",),
    ("restart_shim",),
)


@pytest.mark.parametrize("faults", SHORT, ids="+".join)
def test_there_are_never_two_holders_and_nothing_acknowledged_is_lost(small: Fleet, faults: tuple[str, ...]) -> None:
    well_for_good(small)
    run = hurt(small, SEED, *faults)
    print(line_of(run))
    assert run.verdict.violations == []
    assert all(run.verdict.answered[agent] > 50 for agent in (*SINGLETONS, *FENCED))


def test_a_shim_that_hangs_is_killed_and_its_singletons_go_on_under_the_next(small: Fleet) -> None:
    well_for_good(small)
    host = Scene(small, random.Random(SEED)).holder()[1]

    def act() -> None:
        small.on(host, "systemctl kill --kill-who=main --signal=STOP outriderd")

    run = observed(small, SEED, ("freeze_shim",), act)
    print(line_of(run))
    assert run.verdict.violations == []
    assert "Watchdog timeout" in small.on(host, "journalctl --boot --unit outriderd --output cat")


def test_a_host_is_drained_without_a_failed_call(small: Fleet, tmp_path: Path) -> None:
    until(lambda: well(small), 120, small.what_is_wrong)
    host = next(row["host"] for row in small.status("lab4")["instances"] if row["agent"] == "Lone")
    if host == "lab4":  # the observer calls from there
        small.on("lab1", "outrider drain lab4 && outrider undrain lab4")
        host = next(row["host"] for row in small.status("lab4")["instances"] if row["agent"] == "Lone")
    before = written(small)
    observer = Observer(small, "lab4", "drained", tmp_path / "seen")
    try:
        small.on("lab1", f"outrider drain {host} --reason test")
        rows = small.status("lab4")["instances"]
        assert host not in {row["host"] for row in rows if row["status"] == "passing"}
    finally:
        small.on("lab1", f"outrider undrain {host}")
        until(lambda: well(small), 120, small.what_is_wrong)
        seen = observer.stop()
    verdict = judge(small, seen, before)
    assert verdict.violations == []
    assert verdict.errors == {}


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
    assert list(_at_once([Worked(1, "A@h1:1"), Worked(2, "A@h1:1"), Worked(3, "A@h2:3"), Worked(4, "A@h2:3")])) == []
    assert list(_at_once([Worked(1, "A@h1:1"), Worked(3, "A@h2:3"), Worked(4, "A@h1:1"), Worked(5, "A@h2:3")]))
    assert moved({"Counter": 1, "Ledger": 2, "Lone": 3}, {"Counter": 1, "Ledger": 3, "Lone": 3}) == [
        "Ledger failed over without need"
    ]
