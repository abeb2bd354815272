"""The fault suite: faults singly and in random pairs on a lab, one observer, and what must hold afterwards.

    make faults FAULTS=20 SEED=7
    make faults ARGS='--agent Clerk'                    hurts the holder of that one
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
from collections.abc import Callable
from pathlib import Path

from faults.injected import FAULTS, HARMLESS, SHIM_AWAY, inject
from faults.observer import FENCED, Observer, judge, written
from faults.runs import Run, code, keep, kept, line_of, report, table
from faults.scene import Scene
from faults.small import HELD, WELL_S, epochs, small_fleet, well, well_for_good
from hosts.fleet import Fleet, until

BEFORE_S = 1.0


def hurt(fleet: Fleet, seed: int, *names: str, long: bool = False, agent: str = "") -> Run:
    """Do it while the observer calls, wait until all is well, and judge. `agent`: whose holder is hurt."""
    scene = Scene(fleet, random.Random(seed), long, agent)
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
        ends = FENCED if SHIM_AWAY.intersection(names) else ()
        verdict.violations += moved({agent: held[agent] for agent in HELD if agent not in ends}, epochs(fleet))
    return Run(seed, names, round(well_s, 3), verdict, code())


def moved(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """The singletons that failed over."""
    return [f"{agent} failed over without need" for agent in before if before[agent] != after[agent]]


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


def run_seeds(fleet: Fleet, seeds: range, seconds: float, agent: str) -> None:
    """Those that were not run yet with this code, as many as are begun within `seconds`."""
    end = time.monotonic() + seconds
    done = {(run.seed, run.faults) for run in kept() if (run.code, run.agent) == (code(), agent)}
    well_for_good(fleet)
    for seed in seeds:
        names = chosen(seed)
        if (seed, names) in done or time.monotonic() > end:
            continue
        print(f"{seed:4d} {' + '.join(names)} ...", flush=True)
        run = hurt(fleet, seed, *names, long=len(names) == 1, agent=agent)
        run.agent = agent
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
    parser.add_argument("--agent", default="", choices=HELD, help="whose holder is hurt; any singleton's by default")
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
                run_seeds(
                    fleet, range(arguments.seed, arguments.seed + arguments.faults), arguments.within, arguments.agent
                )
    runs = kept()
    print("\n".join(table(runs) + report(runs) if arguments.table else report(runs)))
    return int(any(run.verdict.violations for run in runs))


if __name__ == "__main__":
    sys.exit(main())
