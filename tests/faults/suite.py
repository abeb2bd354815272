"""The fault suite: faults singly and in random pairs on a lab, one observer, and what must hold afterwards.

    make faults FAULTS=20 SEED=7
    make faults ARGS='--table'                          what the kept runs say, as docs/reliability.md has it
    make faults ARGS='--calm starved --minutes 10'      or restarts: nothing may fail over

Each run is added to build/faults.jsonl; a seed that is there for the code as it is now is not run again. Where
$OUTRIDER_LAB names a lab, it is done there, and the lab is left up.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from faults.injected import FAULTS, HARMLESS, inject
from faults.observer import SINGLETONS, Observer, judge, written
from faults.runs import Run, code, keep, kept, line_of, report, table
from faults.scene import Scene
from hosts.fleet import Fleet, until
from hosts.lab.image import CHECKOUT
from hosts.lab.lab import Lab

FLEET_FILE = CHECKOUT / "tests/faults/fleet.yml"
MADE_WITH = "made-with"  # in the lab's folder: the code whose fleet runs there
WELL_S = 120.0
BEFORE_S, AFTER_S = 1.0, 2.0


@contextmanager
def small_fleet(given: str = "") -> Iterator[Fleet]:
    """The fleet that is hurt: on a lab of its own, or on the one in the folder `given`, which stays."""
    # Short, because ssh's sockets are in it.
    with tempfile.TemporaryDirectory(prefix="lab") as folder:
        lab = Lab(Path(given or Path(folder) / "lab"))
        with _environment(lab.folder):
            try:
                if not lab.machines():
                    lab.up(4)
                fleet = Fleet(lab)
                if not _runs(fleet):
                    # Without what it has no use for: the reference fleet's models, and Prometheus.
                    without = {"outrider_requirements": []}
                    fleet.first = fleet.play(
                        "site.yml", "--skip-tags", "monitoring", fleet_file=str(FLEET_FILE), **without
                    )
                    if fleet.first.status:
                        raise SystemExit(f"site.yml failed:\n{fleet.first.output}")
                    (lab.folder / MADE_WITH).write_text(code())
                yield fleet
            finally:
                if not given:
                    lab.down()


def _runs(fleet: Fleet) -> bool:
    with suppress(OSError):
        return (fleet.lab.folder / MADE_WITH).read_text() == code()
    return False


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
    with suppress(ValueError, KeyError, LookupError):
        status, found = fleet.consul("lab4", "operator/autopilot/health")
        return status == 200 and found["Healthy"] and all(_well_on(fleet, host) for host in fleet.lab.machines())
    return False


def well_for_good(fleet: Fleet) -> float:
    """Wait until it is well, and still is after every part had the time to notice; since when, in monotonic seconds."""
    since = 0.0

    def still() -> bool:
        nonlocal since
        if well(fleet):
            since = time.monotonic()
            time.sleep(AFTER_S)
            return well(fleet)
        return False

    until(still, WELL_S, fleet.what_is_wrong)
    return since


def _well_on(fleet: Fleet, host: str) -> bool:
    rows = fleet.status(host)["instances"]
    held = sorted(row["agent"] for row in rows if row["role"] == "holder")
    return held == sorted(SINGLETONS) and all(row["status"] == "passing" for row in rows)


def hurt(fleet: Fleet, seed: int, *names: str, long: bool = False) -> Run:
    """Do it while the observer calls, wait until all is well, and judge."""
    scene = Scene(fleet, random.Random(seed), long)
    return observed(fleet, seed, names, lambda: inject(scene, *names))


def observed(fleet: Fleet, seed: int, names: tuple[str, ...], act: Callable[[], None]) -> Run:
    """What `act` does to a fleet that is well, under the observer's eyes."""
    before, held, sick = written(fleet), epochs(fleet), []
    with tempfile.TemporaryDirectory() as folder:
        observer = Observer(fleet, "lab4", f"{seed}-{time.time_ns()}", Path(folder) / "seen")
        try:
            time.sleep(BEFORE_S)
            began = time.monotonic()
            act()
            try:
                well_s = well_for_good(fleet) - began
            except AssertionError as error:
                well_s = time.monotonic() - began
                sick.append(str(error))
        finally:
            seen = observer.stop()
    verdict = judge(fleet, seen, before)
    verdict.violations += sick
    if HARMLESS.issuperset(names):
        verdict.violations += moved(held, epochs(fleet))
    return Run(seed, names, round(well_s, 3), verdict, code())


def epochs(fleet: Fleet) -> dict[str, int]:
    """Of each singleton's lease: another one means another holder, or the same anew."""
    return {agent: fleet.consul("lab4", f"kv/outrider/leases/{agent}?raw")[1]["epoch"] for agent in SINGLETONS}


def moved(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """The singletons that failed over."""
    return [f"{agent} failed over without need" for agent in SINGLETONS if before[agent] != after[agent]]


def calm(fleet: Fleet, what: str, minutes: float) -> Run:
    """Starve the fleet, or restart its shims one after the other, for so long: no singleton may move."""
    scene = Scene(fleet, random.Random(0), long=True)
    end = time.monotonic() + minutes * 60

    def starved() -> None:
        while time.monotonic() < end:
            inject(scene, "starve")

    def restarts() -> None:
        while time.monotonic() < end:
            for host in fleet.lab.machines():
                fleet.on(host, "systemctl restart outriderd")
                until(lambda: well(fleet), WELL_S, fleet.what_is_wrong)

    name, act = {"starved": ("starve", starved), "restarts": ("restart_shim", restarts)}[what]
    well_for_good(fleet)
    run = observed(fleet, -1, (name,), act)
    run.calm_s = minutes * 60
    return run


def chosen(seed: int) -> tuple[str, ...]:
    """The fault of a seed: the first seeds are the single faults in turn, the rest random pairs."""
    names = list(FAULTS)
    if seed < len(names):
        return (names[seed],)
    one, other = random.Random(seed).sample(names, 2)
    return one, other


def run_seeds(fleet: Fleet, seeds: range, seconds: float) -> None:
    """Those that were not run yet with this code, as many as are begun within `seconds`."""
    end = time.monotonic() + seconds
    done = {(run.seed, run.faults) for run in kept() if run.code == code()}
    well_for_good(fleet)
    for seed in seeds:
        names = chosen(seed)
        if (seed, names) in done or time.monotonic() > end:
            continue
        print(f"{seed:4d} {' + '.join(names)} ...", flush=True)
        run = hurt(fleet, seed, *names, long=len(names) == 1)
        keep(run)
        print(line_of(run), flush=True)
        for violation in run.verdict.violations[:10]:
            print(f"     VIOLATION {violation}", flush=True)
        if run.verdict.violations:
            well_for_good(fleet)


def main() -> int:
    """Run FAULTS faults from SEED on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=len(FAULTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--within", type=float, default=float("inf"), help="begin no fault later than that, in seconds")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--calm", choices=("starved", "restarts"))
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    given = os.environ.get("OUTRIDER_LAB", "")
    if not arguments.table:
        with small_fleet(given) as fleet:
            if arguments.calm:
                keep(run := calm(fleet, arguments.calm, arguments.minutes))
                print(line_of(run))
            else:
                run_seeds(fleet, range(arguments.seed, arguments.seed + arguments.faults), arguments.within)
    runs = kept()
    print("\n".join(table(runs) + report(runs) if arguments.table else report(runs)))
    return int(any(run.verdict.violations for run in runs))


if __name__ == "__main__":
    sys.exit(main())
