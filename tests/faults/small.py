"""The small fleet that is hurt, on a lab, and whether all is well with it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from faults.observer import FENCED, SINGLETONS
from faults.runs import code
from hosts.fleet import Fleet, until
from hosts.lab.image import CHECKOUT
from hosts.lab.lab import Lab

FLEET_FILE = CHECKOUT / "tests/faults/fleet.yml"
MADE_WITH = "made-with"  # in the lab's folder: the code whose fleet runs there
WELL_S, STILL_S = 120.0, 2.0
HELD = (*SINGLETONS, *FENCED)


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
    # A host that has just been started has neither a Consul that can be asked nor a shim.
    with suppress(ValueError, KeyError, LookupError, subprocess.CalledProcessError):
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
            time.sleep(STILL_S)
            return well(fleet)
        return False

    until(still, WELL_S, fleet.what_is_wrong)
    return since


def _well_on(fleet: Fleet, host: str) -> bool:
    rows = fleet.status(host)["instances"]
    held = sorted(row["agent"] for row in rows if row["role"] == "holder")
    return held == sorted(HELD) and all(row["status"] == "passing" for row in rows)


def epochs(fleet: Fleet) -> dict[str, int]:
    """Of each singleton's lease: another one means another holder, or the same anew."""
    return {agent: fleet.consul("lab4", f"kv/outrider/leases/{agent}?raw")[1]["epoch"] for agent in HELD}
