"""Instances as child processes in sessions of their own, which outlive the shim and are found again by the next one.

A record per instance says which process it is. A shim that dies between the start and the record loses nothing:
every process carries its instance in its environment, and adoption looks there too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from outrider.errors import HostError
from outrider.host.config import Config
from outrider.host.pidfd import Watches
from outrider.host.processes import Stat, all_stats, boot_id, environment_of, is_alive, session_members, stat_of
from outrider.host.supervisor import Callback, Died, Exit, Launch, Process, exit_of

log = logging.getLogger("outrider.processes")

DUPLICATE_STOP_S = 5.0
# Python ignores these for itself and subprocess gives them back; every other ignored signal came from our parent.
PYTHON_IGNORES = {signal.SIGPIPE, signal.SIGXFSZ}


class Record(msgspec.Struct, frozen=True):
    """What is saved of a running instance. It is worth nothing after a reboot, so it is never synced to disk."""

    process: Process
    boot: str


class ProcessSupervisor:
    """Fills Supervisor with sessions of child processes."""

    def __init__(self, config: Config) -> None:
        self._runtime = str(config.runtime_dir)
        self._dir = config.state_dir / "processes"
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._boot = boot_id()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._watches = Watches(self._ended)
        self._stopping: set[asyncio.Task[None]] = set()

    async def start(self, launch: Launch) -> Process:
        """Start it and return as soon as it runs its program. Raises HostError if it cannot."""
        child = spawn(launch)
        stat = stat_of(child.pid)
        assert stat is not None  # it is our child: even dead it stays until we reap it
        process = Process(launch.instance, child.pid, stat.started, launch.version)
        self._children[child.pid] = child
        self._watches.of(process)
        self._save(process)
        return process

    async def stop(self, process: Process, timeout_s: float) -> None:
        """SIGTERM to it; when it is gone or after `timeout_s`, SIGKILL to what is left of its session."""
        watch = self._watches.of(process)
        watch.send(signal.SIGTERM)
        await watch.wait(timeout_s)
        if not watch.done:
            log.warning("%s (pid %d) did not end within %g s: killed", process.instance, process.pid, timeout_s)
        # As systemd's KillMode=mixed: who left workers behind did not mean to leave them with its ports.
        kill_session(process)
        watch.send(signal.SIGKILL)
        await watch.wait(None)

    async def kill(self, process: Process) -> None:
        """SIGKILL to its whole session, for one that hangs and cannot obey. Its death is told as any other."""
        kill_session(process)
        self._watches.of(process).send(signal.SIGKILL)

    def adopt(self) -> list[Process]:
        """Running instances that an earlier shim left: from the records, then from the environment of processes."""
        recorded = [record.process for record in self._records() if self._still_runs(record)]
        found = found_in_environment(all_stats(), self._runtime)
        adopted: dict[str, Process] = {}
        for process in in_order(recorded, found):
            first = adopted.setdefault(process.instance, process)
            if first is process:
                self._save(process)
            elif first.pid != process.pid:
                log.warning("%s runs twice: pid %d stays, the younger pid %d is stopped",
                            process.instance, first.pid, process.pid)  # fmt: skip
                task = asyncio.get_running_loop().create_task(self.stop(process, DUPLICATE_STOP_S))
                self._stopping.add(task)
                task.add_done_callback(self._stopping.discard)
        self._drop_records(keep=adopted.keys())
        return list(adopted.values())

    def watch_exit(self, process: Process, died: Died, ended: Callback) -> None:
        """Call both back, one after the other, within about a millisecond of its death."""

        def tell(gone: Process, how: Exit) -> None:
            died(gone)
            ended(gone, how)

        self._watches.of(process).call(tell)

    def forget(self, instance: str) -> None:
        """Drop what is saved and watched for it. The process is left alone."""
        self._path(instance).unlink(missing_ok=True)
        self._watches.forget(instance)

    def _ended(self, process: Process) -> Exit:
        """Reap it if it is ours, end what it left in its group, forget its record."""
        child = self._children.pop(process.pid, None)
        kill_group(process)  # before it is reaped: until then its pid, and so its group, cannot be anybody else's
        record = self._read(self._path(process.instance))
        if record and record.process.pid == process.pid:
            self._path(process.instance).unlink(missing_ok=True)
        return exit_of(child.wait() if child is not None else None)

    def _still_runs(self, record: Record) -> bool:
        return record.boot == self._boot and is_alive(record.process.pid, record.process.started)

    def _path(self, instance: str) -> Path:
        return self._dir / f"{instance}.json"

    def _save(self, process: Process) -> None:
        path = self._path(process.instance)
        scratch = path.with_suffix(".tmp")
        scratch.write_bytes(msgspec.json.encode(Record(process, self._boot)))
        scratch.replace(path)

    def _read(self, path: Path) -> Record | None:
        """One that is missing or damaged counts as absent: the environment still tells."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(path.read_bytes(), type=Record)
        return None

    def _records(self) -> list[Record]:
        return [record for path in sorted(self._dir.glob("*.json")) if (record := self._read(path))]

    def _drop_records(self, keep: Iterable[str]) -> None:
        kept = set(keep)
        for path in self._dir.glob("*.json"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)


def in_order(recorded: Iterable[Process], found: Iterable[Process]) -> list[Process]:
    """Each process once, the oldest first, so that of two with one instance the younger is the duplicate."""
    unique = {process.pid: process for process in (*found, *recorded)}
    return sorted(unique.values(), key=lambda process: (process.started, process.pid))


def found_in_environment(stats: Iterable[Stat], runtime: str) -> list[Process]:
    """Session leaders that carry an instance of this shim. Workers that an instance started are not instances."""
    carried: dict[int, tuple[Stat, str, str]] = {}
    for stat in stats:
        if stat.zombie or stat.pid != stat.session:
            continue
        env = environment_of(stat.pid)
        if env.get("OUTRIDER_RUNTIME") == runtime and env.get("OUTRIDER_INSTANCE"):
            carried[stat.pid] = (stat, env["OUTRIDER_INSTANCE"], env.get("OUTRIDER_VERSION", ""))
    return [
        Process(instance, stat.pid, stat.started, version)
        for stat, instance, version in carried.values()
        if environment_of(stat.parent).get("OUTRIDER_INSTANCE") != instance
    ]


def kill_session(process: Process) -> None:
    """SIGKILL to every process of its session, also to those that went into other process groups."""
    if not _reused(process):
        for stat in session_members(process.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(stat.pid, signal.SIGKILL)


def kill_group(process: Process) -> None:
    """SIGKILL to what a dead process left in its group: workers without a master, and with its ports."""
    if not _reused(process):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _reused(process: Process) -> bool:
    """Whether its pid names another process now. A pid in use as session or group is given to no new process."""
    stat = stat_of(process.pid)
    return stat is not None and stat.started != process.started


def spawn(launch: Launch) -> subprocess.Popen[bytes]:
    """Start the program in a session of its own, with nothing of ours but its log. Raises HostError."""
    log_path = Path(launch.log_path)
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with open(log_path, "ab") as output, signals_as_new():
            return subprocess.Popen(
                launch.argv,
                cwd=launch.cwd,
                env=_with_home(launch),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **_identity(launch.user),
            )
    except (OSError, ValueError) as error:
        what = getattr(error, "filename", None) or launch.argv[0]
        reason = getattr(error, "strerror", None) or str(error)
        raise HostError(
            f"{launch.instance}: {what}: {reason}", hint=f"it was to run: {' '.join(launch.argv)}"
        ) from error


def _identity(user: str | None) -> dict[str, Any]:
    """Keywords of Popen to become `user`; none where we may not, or already are."""
    if not user or os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise HostError(f"the system user {user} does not exist", hint=f"create it: useradd --system {user}") from None
    groups = os.getgrouplist(user, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


def _with_home(launch: Launch) -> dict[str, str]:
    """Its environment; another user does not get our home folder."""
    with contextlib.suppress(KeyError):
        if launch.user and os.geteuid() == 0 and launch.env.get("HOME") == os.environ.get("HOME"):
            return launch.env | {"HOME": pwd.getpwnam(launch.user).pw_dir}
    return launch.env


@contextlib.contextmanager
def signals_as_new() -> Iterator[None]:
    """Signals that whoever started us had ignored or blocked (nohup, `&` in a script) reach our children again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = [n for n in signal.valid_signals() - PYTHON_IGNORES if signal.getsignal(n) is signal.SIG_IGN]
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
