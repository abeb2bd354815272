"""The dead-man of a singleton that knows of no lease: ends it when its lease is over, whatever becomes of the shim.

    python -I -S deadman.py LEASE PROGRAM [ARGUMENT...]

starts a guard and becomes PROGRAM, which keeps the pid. The guard sleeps until the lease's deadline and looks again; if
the deadline has not moved it kills every process of the session, which is all that the program has started, unless one
made a session of its own (a unit of systemd has none that outlives its main process). It holds a shared lock of the
lease's file, so that the shim knows whether it is there. One runs beside each such instance, so it imports what is
built into Python and nothing else: 3 MiB.

Exit statuses before the program runs: 75 no lease is held, 78 wrong use, 127 no such program, 126 it cannot be run.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import NoReturn

# As outrider.discovery.lease_file writes it, which this must not import.
EPOCH, DEADLINE = 2, 3
GUARD = "--guard"
LOOK_NS = 1_000_000_000  # a lease without an end may get one
NO_LEASE, WRONG_USE, CANNOT_RUN, NOT_FOUND = 75, 78, 126, 127
KILL = 9


def command(lease: Path, program: Sequence[str]) -> tuple[str, ...]:
    """What to start instead of `program`, so that it ends with the lease."""
    return (sys.executable, "-I", "-S", os.path.abspath(__file__), str(lease), *program)


def is_guarded(lease: Path) -> bool:
    """Whether a guard is there."""
    with open(lease, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def left_ns(epoch: int, held_epoch: int, deadline_ns: int, now_ns: int) -> int:
    """For how long a process that was started under `epoch` may work on for certain; 0: not at all."""
    return max(0, deadline_ns - now_ns) if epoch == held_epoch else 0


def main(argv: list[str]) -> NoReturn:
    """Guard, or start a guard and become the program."""
    if argv[:1] == [GUARD] and len(argv) == 2:
        guard(argv[1])
    if len(argv) < 2 or os.getsid(0) != os.getpid():
        _end(WRONG_USE, "a dead-man takes LEASE PROGRAM [ARGUMENT...], and a session of its own, as the shim makes it")
    _start_guard(argv[0])
    try:
        os.execvp(argv[1], argv[1:])
    except OSError as error:
        missing = error.errno == errno.ENOENT
        _end(NOT_FOUND if missing else CANNOT_RUN, f"{error.filename or argv[1]}: {error.strerror}")


def _start_guard(lease: str) -> None:
    """Returns when it watches. Who signals the program's whole unit or group does not mean its guard."""
    import signal  # the guard has no need of it, and it is large

    asked = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    words = [sys.executable, "-I", "-S", os.path.abspath(__file__), GUARD, lease]
    pid = os.posix_spawn(sys.executable, words, os.environ, setpgroup=0, setsigmask=asked)
    if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        sys.exit(status)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, for itself
        signal.signal(number, signal.SIG_DFL)


def guard(lease: str) -> NoReturn:
    """Watch the leader of this session, in a process that is nobody's child, so that the program has none too many."""
    session = os.getsid(0)
    ended = select.poll()
    ended.register(os.pidfd_open(session), select.POLLIN)
    file = os.open(lease, os.O_RDONLY)
    fcntl.flock(file, fcntl.LOCK_SH)
    words = memoryview(mmap.mmap(file, 64, access=mmap.ACCESS_READ)).cast("Q")
    epoch = words[EPOCH]
    if not _left_ns(words, epoch):
        _end(NO_LEASE, f"not started: {lease} says that no lease is held")
    if os.fork():
        os._exit(0)
    while left := _left_ns(words, epoch):
        if ended.poll(-(-min(left, LOOK_NS) // 1_000_000)):
            end_session(session)  # what it left behind
            os._exit(0)
    _kill(session)
    end_session(session)
    print("outrider: its lease was over: killed by its dead-man", file=sys.stderr, flush=True)
    os._exit(0)


def _left_ns(words: memoryview, epoch: int) -> int:
    deadline_ns = words[DEADLINE]  # first: who reads a new deadline reads its epoch too
    return left_ns(epoch, words[EPOCH], deadline_ns, time.monotonic_ns())


def end_session(session: int) -> None:
    """SIGKILL to all of it but this process, until none is left."""
    pause_s = 0.002
    while pids := living(session):
        for pid in pids:
            _kill(pid)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 1.0)  # what the kernel holds back ends when it can


def _kill(pid: int) -> None:
    try:
        os.kill(pid, KILL)
    except OSError:  # it is gone, which is as well
        return


def living(session: int) -> list[int]:
    """The leader first. A number that names a session names no new process while one of the session lives."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The name is in brackets and may hold blanks and brackets itself, so count from its end.
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] not in (b"Z", b"X"):
                found.append(int(name))
    return sorted(found, key=lambda pid: pid != session)


def _end(status: int, why: str) -> NoReturn:
    print(f"outrider: {why}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
