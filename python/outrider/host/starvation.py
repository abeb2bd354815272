"""Whether a silent process hangs or merely waits for a CPU: what it and its children ran between two looks at /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from msgspec import Struct

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# A health answer takes a millisecond or two. Who ran this much and gave none does not lack the CPU.
ENOUGH_S = 0.05


class Usage(Struct, frozen=True):
    """A process and its descendants at one moment. `runnable`: one of their threads wants a CPU, or has one."""

    at: float
    ran_s: float
    runnable: bool


def usage_of(pid: int, at: float) -> Usage:
    """What /proc says at monotonic time `at`. A process that is gone has run for no time."""
    ran_s, runnable, waiting = 0.0, False, [pid]
    while waiting:
        folder = PROC / str(waiting.pop())
        with contextlib.suppress(OSError):
            whole = _fields(folder / "stat")  # with the time of threads that have ended
            ran_s += (int(whole[11]) + int(whole[12])) / TICKS_PER_S
            for task in (folder / "task").iterdir():
                runnable = runnable or _fields(task / "stat")[0] == "R"
                waiting += [int(child) for child in (task / "children").read_text().split()]
    return Usage(at, ran_s, runnable)


def _fields(stat: Path) -> list[str]:
    """What stands behind the name, which is in brackets and may hold blanks and brackets itself."""
    return stat.read_text(errors="replace").rpartition(")")[2].split()


def starved(before: Usage, now: Usage) -> bool:
    """True if it wanted a CPU at the end and in the time between got too little of one for an answer."""
    return now.runnable and now.ran_s - before.ran_s < ENOUGH_S
