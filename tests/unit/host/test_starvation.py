"""Real processes that get a CPU, want one in vain, or want none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from outrider.host.starvation import starved, usage_of

# Both on one CPU and in one session: an idle-class loop beside a normal one gets three thousandths of it.
PAIR = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
pid = os.fork()
if pid == 0:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
else:
    print(pid, flush=True)
while True: pass
"""


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    """Pids of a loop that gets the CPU and of one that does not."""
    process = subprocess.Popen([sys.executable, "-c", PAIR], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout
    idle = int(process.stdout.readline())
    yield process.pid, idle
    os.killpg(process.pid, 9)
    process.wait()


def watched(pid: int) -> bool:
    before = usage_of(pid, time.monotonic())
    time.sleep(0.4)
    return starved(before, usage_of(pid, time.monotonic()))


def test_one_that_wants_a_cpu_and_gets_none_is_starved(pair: tuple[int, int]) -> None:
    _, idle = pair
    assert watched(idle)


def test_one_that_runs_is_not_starved_whatever_it_does_with_it(pair: tuple[int, int]) -> None:
    busy, _ = pair
    assert not watched(busy)


def test_one_that_sleeps_or_is_stopped_is_not_starved() -> None:
    process = subprocess.Popen(["/bin/sleep", "300"])
    try:
        assert not watched(process.pid)
        os.kill(process.pid, 19)
        assert not watched(process.pid)
    finally:
        process.kill()
        process.wait()


def test_one_that_is_gone_has_no_usage() -> None:
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    assert usage_of(process.pid, 1.0).ran_s == 0.0
