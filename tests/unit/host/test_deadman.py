"""The dead-man with real processes: everything of the program ends with its lease, and nothing before."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outrider.discovery.lease_file import FOREVER_NS, LeaseWriter
from outrider.host import deadman
from outrider.host.deadman import CANNOT_RUN, NO_LEASE, NOT_FOUND, WRONG_USE, is_guarded, left_ns, living

# Says what it has got, and has a child that obeys nobody.
PROGRAM = """
import os, signal, time
print(os.getpid(), flush=True)
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child", flush=True)
if not os.fork():
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, b"ready\\n")
time.sleep(1000)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leases" / "Worker-1"


@pytest.fixture
def lease(path: Path) -> Iterator[LeaseWriter]:
    made = LeaseWriter(path)
    yield made
    made.close()


@pytest.fixture
def start(path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started = []

    def begin(*program: str, new_session: bool = True) -> subprocess.Popen[str]:
        words = deadman.command(path, program or (sys.executable, "-c", PROGRAM))
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, start_new_session=new_session))
        return started[-1]

    yield begin
    for child in started:
        for pid in living(child.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.communicate()


def until_ready(child: subprocess.Popen[str]) -> list[str]:
    """What the program says before both its processes run."""
    assert child.stdout
    said: list[str] = []
    while said.count("ready") < 2:
        said.append(child.stdout.readline().strip())
        assert said[-1]
    return said


def wait(what: Callable[[], object]) -> None:
    until = time.monotonic() + 20.0
    while not what():
        assert time.monotonic() < until
        time.sleep(0.005)


def in_s(seconds: float) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


def test_a_process_may_go_on_until_its_deadline_and_under_its_own_epoch() -> None:
    assert left_ns(7, 7, 1000, 400) == 600
    assert left_ns(7, 7, 1000, 1000) == 0
    assert left_ns(7, 7, 0, 400) == 0
    assert left_ns(7, 8, 1000, 400) == 0


def test_the_program_keeps_the_pid_and_gets_no_child(
    lease: LeaseWriter, start: Callable[..., subprocess.Popen[str]]
) -> None:
    lease.grant(7, FOREVER_NS)
    child = start()
    assert until_ready(child)[:2] == [str(child.pid), "no child"]


def test_all_of_it_ends_when_the_lease_is_over(
    path: Path, lease: LeaseWriter, start: Callable[..., subprocess.Popen[str]]
) -> None:
    lease.grant(7, FOREVER_NS)
    child = start()
    until_ready(child)
    assert len(living(child.pid)) == 3  # with its guard
    lease.grant(7, in_s(0.5))
    assert is_guarded(path)
    lease.grant(7, in_s(1.0))  # extended in time
    extended = lease.deadline_ns
    wait(lambda: child.poll() is not None)
    assert time.monotonic_ns() > extended
    assert child.returncode == -signal.SIGKILL
    wait(lambda: not living(child.pid))
    assert not is_guarded(path)
    assert "its lease was over" in child.communicate()[1]


@pytest.mark.parametrize("end", [LeaseWriter.end, lambda lease: lease.grant(8, FOREVER_NS)], ids=["taken away", "new"])
def test_another_lease_is_none_of_its(
    end: Callable[[LeaseWriter], None], lease: LeaseWriter, start: Callable[..., subprocess.Popen[str]]
) -> None:
    lease.grant(7, FOREVER_NS)
    child = start()
    until_ready(child)
    end(lease)
    wait(lambda: not living(child.pid))


def test_what_a_program_leaves_behind_ends_with_it(
    path: Path, lease: LeaseWriter, start: Callable[..., subprocess.Popen[str]]
) -> None:
    lease.grant(7, FOREVER_NS)
    child = start()
    until_ready(child)
    child.terminate()
    child.wait()
    wait(lambda: not living(child.pid))
    assert not is_guarded(path)


def test_a_signal_to_all_of_the_unit_does_not_end_its_guard(
    lease: LeaseWriter, start: Callable[..., subprocess.Popen[str]]
) -> None:
    lease.grant(7, FOREVER_NS)
    child = start(sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN);" + PROGRAM)
    until_ready(child)
    for pid in living(child.pid):
        os.kill(pid, signal.SIGTERM)
    lease.end()
    wait(lambda: not living(child.pid))


def test_without_a_lease_nothing_starts(lease: LeaseWriter, start: Callable[..., subprocess.Popen[str]]) -> None:
    lease.grant(7, in_s(-1.0))
    child = start("echo", "I work")
    assert child.communicate() == ("", f"outrider: not started: {child.args[4]} says that no lease is held\n")  # type: ignore[index]
    assert child.returncode == NO_LEASE


@pytest.mark.parametrize(
    ("program", "new_session", "status"),
    [("/nowhere", True, NOT_FOUND), ("/", True, CANNOT_RUN), ("true", False, WRONG_USE)],
)
def test_what_cannot_be_says_why(
    lease: LeaseWriter,
    start: Callable[..., subprocess.Popen[str]],
    program: str,
    new_session: bool,
    status: int,
) -> None:
    lease.grant(7, FOREVER_NS)
    child = start(program, new_session=new_session)
    assert child.communicate()[1].startswith("outrider: ")
    assert child.returncode == status


def test_it_is_small(lease: LeaseWriter, start: Callable[..., subprocess.Popen[str]]) -> None:
    """Dozens run on a host: nothing is imported that is not needed."""
    lease.grant(7, FOREVER_NS)
    child = start()
    until_ready(child)
    (guard,) = (p for p in living(child.pid) if b"--guard" in Path(f"/proc/{p}/cmdline").read_bytes())
    rollup = dict(line.split(":") for line in Path(f"/proc/{guard}/smaps_rollup").read_text().splitlines()[1:])
    assert int(rollup["Private_Dirty"].split()[0]) < 5000
