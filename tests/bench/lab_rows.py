"""The lab's rows of bench-discovery: four real hosts, and a Consul leader that is killed or stands still."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Row, row

sys.path.append(str(Path(__file__).resolve().parent.parent))

from lab_changes import seen_everywhere

from hosts.fleet import PLAY_S, Fleet, until
from hosts.lab.lab import Lab
from hosts.load import Measured, load

WELL_S = 300.0
KILLED_S = 10.0


def lab_rows(count: int, frozen_s: float, rounds: int) -> list[Row]:
    """All of them; without root none, and a line that says so."""
    if os.geteuid() != 0:
        print("the lab's rows need root (systemd-nspawn): left out", file=sys.stderr)
        return []
    with running_fleet() as fleet:
        fleet.wait_well(WELL_S)
        rows = seen_everywhere(fleet, count)
        rows += without_leader(fleet, "killed", lambda host: kill(fleet, host), KILLED_S, rounds)
        rows += without_leader(fleet, "frozen", lambda host: freeze(fleet, host, frozen_s), frozen_s + 5, rounds)
    return rows


@contextmanager
def running_fleet(**variables: str) -> Iterator[Fleet]:
    """The reference fleet, or as `variables` of the playbook say, on a lab of its own that is gone afterwards.

    On the lab that $OUTRIDER_LAB names, what runs there; it is left up.
    """
    if given := os.environ.get("OUTRIDER_LAB"):
        yield Fleet(Lab(Path(given)))
        return
    # Short, because ssh's sockets are in it.
    with tempfile.TemporaryDirectory(prefix="lab") as folder:
        lab = Lab(Path(folder) / "lab")
        os.environ["OUTRIDER_LAB"] = str(lab.folder)
        try:
            lab.up(4)
            fleet = Fleet(lab)
            make(fleet, **variables)
            yield fleet
        finally:
            lab.down()
            del os.environ["OUTRIDER_LAB"]


def make(fleet: Fleet, **variables: str) -> None:
    """`site.yml` on the untouched hosts. Whatever ends this ends the playbook, which Ctrl-C does not reach."""
    process = fleet.start_play("site.yml", **variables)
    try:
        output, _ = process.communicate(timeout=PLAY_S)
    except BaseException:
        fleet.kill_play(process)
        raise
    if process.returncode:
        raise SystemExit(f"site.yml failed:\n{output}")


def without_leader(fleet: Fleet, what: str, act: Callable[[str], None], seconds: float, rounds: int) -> list[Row]:
    """Lookups on every host, and writes through the client's Consul, around what is done to the leader."""
    found = [_round(fleet, act, seconds) for _ in range(rounds)]
    case = f"lookups while the Consul leader is {what}"
    return [
        row(f"{case}, on four hosts", "outrider", "count", [measured.lookups for measured in found]),
        row(f"{case}: failed", "outrider", "count", [measured.failed for measured in found]),
        row(f"{case}: slowest", "outrider", "ms", [measured.slowest_ms for measured in found]),
        row(f"longest gap between KV writes, leader {what}", "consul", "ms", [m.write_gap_ms for m in found]),
    ]


def _round(fleet: Fleet, act: Callable[[str], None], seconds: float) -> Measured:
    with load(fleet, list(fleet.lab.machines()), "lab4") as measured:
        time.sleep(2)
        act(leader(fleet))
        time.sleep(seconds)
        until(lambda: healthy(fleet), 90, fleet.what_is_wrong)
    return measured[0]


def healthy(fleet: Fleet) -> bool:
    """All servers are there, and the cluster has a leader."""
    try:
        status, found = fleet.consul("lab4", "operator/autopilot/health")
    except subprocess.CalledProcessError:
        return False
    return status == 200 and bool(found["Healthy"])


def leader(fleet: Fleet) -> str:
    """Name of the host that leads."""
    _, found = fleet.consul("lab4", "operator/raft/configuration")
    return next(str(server["Node"]) for server in found["Servers"] if server["Leader"])


def kill(fleet: Fleet, host: str) -> None:
    """kill -9; systemd starts it again after a second."""
    fleet.on(host, "systemctl kill --kill-who=main --signal=KILL consul")


def freeze(fleet: Fleet, host: str, seconds: float) -> None:
    """SIGSTOP, and on again after `seconds`."""
    fleet.on(host, "kill -STOP $(pidof consul)")
    threading.Timer(seconds, lambda: fleet.on(host, "kill -CONT $(pidof consul)")).start()
