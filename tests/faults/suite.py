"""The fault suite: faults singly and in random pairs on a lab, one observer, and what must hold afterwards.

    make faults FAULTS=20 SEED=7

Each run is added to build/faults.jsonl, by seed; `report` counts over all of them. With n faults and no violation the
share of faults that lead to one is below 3/n with 95 % confidence (the rule of three).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct, to_builtins

from faults.injected import FAULTS, Scene, both
from faults.observer import Observer, Verdict, judge
from hosts.fleet import Fleet, until
from hosts.lab.image import CHECKOUT
from hosts.lab.lab import Lab

FLEET_FILE = CHECKOUT / "tests/faults/fleet.yml"
KEPT = CHECKOUT / "build/faults.jsonl"
WELL_S = 120.0
BEFORE_S, AFTER_S = 1.0, 2.0


class Run(Struct):
    """One fault, or two at once, and what came of it. `well_s`: from its beginning until all was well again."""

    seed: int
    faults: tuple[str, ...]
    well_s: float
    verdict: Verdict


@contextmanager
def small_fleet() -> Iterator[Fleet]:
    """The fleet that is hurt, on a lab of its own."""
    # Short, because ssh's sockets are in it.
    with tempfile.TemporaryDirectory(prefix="lab") as folder:
        lab = Lab(Path(folder) / "lab")
        with _environment(lab.folder):
            try:
                lab.up(4)
                fleet = Fleet(lab)
                # Without what it has no use for: the reference fleet's models, and Prometheus.
                without = {"outrider_requirements": []}
                fleet.first = fleet.play("site.yml", "--skip-tags", "monitoring", fleet_file=str(FLEET_FILE), **without)
                if fleet.first.status:
                    raise SystemExit(f"site.yml failed:\n{fleet.first.output}")
                yield fleet
            finally:
                lab.down()


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    before = os.environ.get("OUTRIDER_LAB")
    os.environ["OUTRIDER_LAB"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OUTRIDER_LAB"]
        else:
            os.environ["OUTRIDER_LAB"] = before


def well(fleet: Fleet) -> bool:
    """Every host sees every instance passing, one holder of each singleton, and Consul has all its servers."""
    try:
        views = [fleet.status(host)["instances"] for host in fleet.lab.machines()]
        status, found = fleet.consul("lab4", "operator/autopilot/health")
    except (ValueError, KeyError, LookupError):
        return False
    passing = all(row["status"] == "passing" for view in views for row in view)
    agents = {row["agent"] for row in views[0] if row["role"] != "replica"}
    holders = [[row["agent"] for row in view if row["role"] == "holder"] for view in views]
    return passing and all(sorted(held) == sorted(agents) for held in holders) and status == 200 and found["Healthy"]


def hurt(fleet: Fleet, seed: int, *names: str) -> Run:
    """Do it while the observer calls, wait until all is well, and judge."""
    until(lambda: well(fleet), WELL_S, fleet.what_is_wrong)
    scene = Scene(fleet, random.Random(seed))
    with tempfile.TemporaryDirectory() as folder:
        observer = Observer(fleet, "lab4", f"{seed}-{time.time_ns()}", Path(folder) / "seen")
        try:
            time.sleep(BEFORE_S)
            began = time.monotonic()
            both(scene, *names) if len(names) == 2 else FAULTS[names[0]](scene)
            until(lambda: well(fleet), WELL_S, fleet.what_is_wrong)
            well_s = time.monotonic() - began
            time.sleep(AFTER_S)
        finally:
            seen = observer.stop()
    return Run(seed, names, well_s, judge(fleet, seen))


def chosen(seed: int) -> tuple[str, ...]:
    """The fault of a seed: the first seeds are the single faults in turn, the rest random pairs."""
    names = list(FAULTS)
    if seed < len(names):
        return (names[seed],)
    one, other = random.Random(seed).sample(names, 2)
    return one, other


def keep(run: Run) -> None:
    """Add it to those that were done before."""
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with KEPT.open("a") as file:
        file.write(json.dumps(to_builtins(run)) + "\n")


def report() -> int:
    """Print what all runs together say; the number of violations."""
    runs = [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []
    violations = [text for run in runs for text in run["verdict"]["violations"]]
    bound = f"fewer than {3 / len(runs):.1%} of faults (95 %)" if runs and not violations else "see above"
    print(f"{len(runs)} runs, {len(violations)} violations: {bound}; seeds {sorted({run['seed'] for run in runs})}")
    return len(violations)


def line_of(run: Run) -> str:
    """What came of it, in one line."""
    gaps = ", ".join(f"{agent} {gap:.2f}" for agent, gap in run.verdict.longest_gap_s.items())
    failed = ", ".join(f"{kind} {count}" for kind, count in run.verdict.errors.items()) or "none"
    what = " + ".join(run.faults)
    return (
        f"{run.seed:4d} {what}: well after {run.well_s:.1f} s; without an answer at most, s: {gaps}; failed: {failed}"
    )


def main() -> int:
    """Run FAULTS faults from SEED on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=len(FAULTS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with small_fleet() as fleet:
        for seed in range(arguments.seed, arguments.seed + arguments.faults):
            run = hurt(fleet, seed, *chosen(seed))
            keep(run)
            print(line_of(run), flush=True)
            for violation in run.verdict.violations[:10]:
                print(f"     VIOLATION {violation}", flush=True)
    return 1 if report() else 0


if __name__ == "__main__":
    sys.exit(main())
