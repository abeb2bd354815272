"""What /proc says of processes: when they started, whose session they are in, and which instance they run."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

PROC = Path("/proc")


class Stat(Struct, frozen=True):
    """One line of /proc/PID/stat. `started`: clock ticks since boot; a zombie is dead but not yet reaped."""

    pid: int
    parent: int
    group: int
    session: int
    started: int
    zombie: bool


def stat_of(pid: int) -> Stat | None:
    """The process of that pid, None if there is none."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name is in brackets and may hold blanks and brackets itself, so count from its end.
    fields = text.rpartition(")")[2].split()
    return Stat(pid, int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]), fields[0] in "ZX")


def is_alive(pid: int, started: int) -> bool:
    """Whether the very process that started then still runs: pids are used again, pid and start time are not."""
    stat = stat_of(pid)
    return stat is not None and stat.started == started and not stat.zombie


def age_s(started: int) -> float:
    """Seconds since a start time in ticks since boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")


def boot_id() -> str:
    """Changes with each boot; start times of another boot mean nothing."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def all_stats() -> Iterator[Stat]:
    """Every process that can be seen."""
    for name in os.listdir(PROC):
        if name.isdigit() and (stat := stat_of(int(name))):
            yield stat


def environment_of(pid: int) -> dict[str, str]:
    """What a process was started with; empty if it is gone, a zombie or another user's."""
    with contextlib.suppress(OSError):
        entries = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
        pairs = (entry.partition(b"=") for entry in entries)
        return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs if name}
    return {}


def session_members(session: int) -> list[Stat]:
    """Living processes of a session, of all its process groups."""
    return [stat for stat in all_stats() if stat.session == session and not stat.zombie]
