"""Instances as systemd units `outrider-agent@INSTANCE`: the same Supervisor, with resource limits and other users.

The unit template is installed by the role `agents`. What is expected of it:

    [Service]
    Type=exec                    # `systemctl start` returns when the program runs, or says why it does not
    ExecStart=PYTHON -I -m outrider.host.exec_agent %i --state-dir STATE_DIR
    Restart=no                   # the shim decides
    KillMode=mixed               # SIGTERM to the agent, SIGKILL to what it leaves behind
    StandardOutput=journal       # until exec_agent has opened the log
    User=                        # a drop-in per instance names another one where the agent has a user
    ReadWritePaths=LOG_DIR/agents RUNTIME_DIR/beats
    StateDirectory=outrider-agents/%i   # in the drop-in of an agent with state

with `StartLimitIntervalSec=0` in [Unit] (the shim backs off by itself), without `CollectMode` (a collected unit has
forgotten its exit status),
and of a polkit rule that the shim's user may manage units `outrider-agent@*`. How long stopping may take is the
shim's: it kills the unit itself. An instance of the template is `Agent-1`, which systemd writes unescaped.

The shim has no privileges, and an agent has another user. Which one, the unit says (`systemctl show`), so that only
root decides it. That user gets the saved launch and the configuration to read, the log and the heartbeat to write, by
access lists on the shim's own files; the state folder is made by systemd, in a folder of root's. Nothing of the shim's
is opened by root: `StandardOutput=append:`, `LoadCredential=` and a `StateDirectory=` inside the shim's own would let
whoever takes the shim over lead root to any file, by a link.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
from collections.abc import Iterable

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from outrider.errors import HostError
from outrider.host.config import Config
from outrider.host.launch_file import hand_over, launch_file
from outrider.host.pidfd import Watches
from outrider.host.processes import stat_of
from outrider.host.supervisor import Callback, Died, Exit, Launch, Process, exit_of

log = logging.getLogger("outrider.processes")

PREFIX = "outrider-agent@"
PROPERTIES = ("Id", "MainPID", "ActiveState", "Result", "ExecMainCode", "ExecMainStatus")
SYSTEMCTL_TIMEOUT_S = 30.0
EXIT_TIMEOUT_S = 1.0
NOTICE_S = 0.005
CLD_EXITED = 1


class Unit(Struct, frozen=True):
    """What `systemctl show` says of one unit. `code` and `status` are those of waitid: exited or signalled, and how."""

    name: str
    main_pid: int = 0
    state: str = ""
    result: str = ""
    code: int = 0
    status: int = 0

    @property
    def instance(self) -> str:
        """The instance that it runs."""
        return self.name.removeprefix(PREFIX).removesuffix(".service")

    def ended(self) -> Exit:
        """How its main process ended."""
        if self.code == 0:
            return exit_of(None)
        ended = exit_of(self.status if self.code == CLD_EXITED else -self.status)
        if self.result == "oom-kill":
            return replace(ended, reason=f"{ended.reason}: out of memory")
        return ended


def unit_of(instance: str) -> str:
    """The unit of an instance."""
    return f"{PREFIX}{instance}.service"


def show_command(units: Iterable[str]) -> list[str]:
    """One question about many units; names may be patterns."""
    return ["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *units]


def user_command(unit: str) -> list[str]:
    """Whose unit it is, and whether there is such a unit at all; asked before it starts."""
    return ["systemctl", "show", "--property=LoadState,User", "--", unit]


def parse_user(unit: str, text: str) -> str:
    """The user from the answer; root if it names none. Raises HostError if there is no such unit."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if values.get("LoadState") != "loaded":
        found = values.get("LoadState", "not known")
        raise HostError(f"{unit}: its template is {found}", hint="the role `agents` installs it: run site.yml")
    return values.get("User") or "root"


def kill_command(unit: str, whom: str, number: signal.Signals) -> list[str]:
    """A signal to the main process of a unit, or to all of them. `--kill-who` is what old systemd knows too."""
    return ["systemctl", "kill", f"--kill-who={whom}", f"--signal={number.name}", "--", unit]


def parse_show(text: str) -> list[Unit]:
    """Units from the output of `systemctl show`: blocks of NAME=VALUE with blank lines between."""
    units = []
    for block in text.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("Id", "").startswith(PREFIX):
            units.append(
                Unit(
                    values["Id"],
                    _number(values.get("MainPID")),
                    values.get("ActiveState", ""),
                    values.get("Result", ""),
                    _number(values.get("ExecMainCode")),
                    _number(values.get("ExecMainStatus")),
                )
            )
    return units


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


class SystemdSupervisor:
    """Fills Supervisor with units of systemd."""

    def __init__(self, config: Config) -> None:
        self._state_dir = config.state_dir
        self._watches = Watches(self._ended)
        self._telling: set[asyncio.Task[None]] = set()

    async def start(self, launch: Launch) -> Process:
        """Start its unit. Raises HostError with the unit and what systemctl said."""
        unit = unit_of(launch.instance)
        user = parse_user(unit, await _systemctl(unit, user_command(unit)))
        await asyncio.to_thread(hand_over, self._state_dir, launch, user)
        await _systemctl(unit, ["systemctl", "start", "--", unit])
        shown = parse_show(await _systemctl(unit, show_command([unit])))
        stat = stat_of(shown[0].main_pid) if shown else None
        if stat is None:
            how = shown[0].ended().reason if shown else "systemd does not know it"
            raise HostError(f"{unit} ended at once: {how}", hint=f"see: journalctl -u {unit}, {launch.log_path}")
        return Process(launch.instance, stat.pid, stat.started, launch.version)

    async def stop(self, process: Process, timeout_s: float) -> None:
        """SIGTERM to its main process; SIGKILL to the whole unit after `timeout_s`; then it is stopped for systemd."""
        unit = unit_of(process.instance)
        watch = self._watches.of(process)
        if not watch.done:
            await _systemctl(unit, kill_command(unit, "main", signal.SIGTERM), tolerate=True)
            await watch.wait(timeout_s)
        if not watch.done:
            log.warning("%s (pid %d) did not end within %g s: killed", process.instance, process.pid, timeout_s)
            await _systemctl(unit, kill_command(unit, "all", signal.SIGKILL), tolerate=True)
            await watch.wait(None)
        await _systemctl(unit, ["systemctl", "stop", "--", unit], tolerate=True)
        await _systemctl(unit, ["systemctl", "reset-failed", "--", unit], tolerate=True)

    async def kill(self, process: Process) -> None:
        """SIGKILL to the whole unit, for one that hangs and cannot obey. Its death is told as any other."""
        unit = unit_of(process.instance)
        await _systemctl(unit, kill_command(unit, "all", signal.SIGKILL))

    def adopt(self) -> list[Process]:
        """Units of ours that run. Asked once, at the start of the shim, so it may wait for systemctl."""
        command = show_command([f"{PREFIX}*.service"])
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SYSTEMCTL_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HostError(f"systemctl: {error}", hint="supervisor = 'systemd' needs systemd on this host") from error
        if done.returncode:
            raise HostError(f"systemctl show {PREFIX}*: {done.stderr.strip()}")
        found = []
        for unit in parse_show(done.stdout):
            stat = stat_of(unit.main_pid) if unit.main_pid else None
            if stat and not stat.zombie:
                found.append(Process(unit.instance, stat.pid, stat.started, self._saved_version(unit.instance)))
        return found

    def watch_exit(self, process: Process, died: Died, ended: Callback) -> None:
        """Call `died` at its death, and `ended` when systemd has said how: that takes tens of milliseconds."""

        def tell(*_: object) -> None:
            died(process)
            task = asyncio.get_running_loop().create_task(self._tell(process, ended))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

        self._watches.of(process).call(tell)

    def forget(self, instance: str) -> None:
        """Drop what is saved and watched for it. The unit is left alone."""
        launch_file(self._state_dir, instance).unlink(missing_ok=True)
        self._watches.forget(instance)

    def _ended(self, process: Process) -> Exit:
        return exit_of(None)  # systemd reaps it, so only systemd knows

    async def _tell(self, process: Process, callback: Callback) -> None:
        unit = unit_of(process.instance)
        ended = exit_of(None)
        try:
            async with asyncio.timeout(EXIT_TIMEOUT_S):
                while shown := parse_show(await _systemctl(unit, show_command([unit]))):
                    ended = shown[0].ended()
                    if shown[0].main_pid != process.pid:
                        break
                    await asyncio.sleep(NOTICE_S)  # the pidfd was quicker than systemd
        except (HostError, TimeoutError) as error:
            log.warning("%s (pid %d) ended; systemd does not say how: %s", process.instance, process.pid, error)
        callback(process, ended)

    def _saved_version(self, instance: str) -> str:
        try:
            return msgspec.json.decode(launch_file(self._state_dir, instance).read_bytes(), type=Launch).version
        except (OSError, msgspec.MsgspecError):
            return ""


async def _systemctl(unit: str, command: list[str], *, tolerate: bool = False) -> str:
    """Run it; its output. Raises HostError with the unit and its message, unless failure is to be tolerated."""
    try:
        child = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise HostError(f"{unit}: systemctl: {error.strerror}", hint="is this a systemd host?") from error
    try:
        async with asyncio.timeout(SYSTEMCTL_TIMEOUT_S):
            output, errors = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        raise HostError(f"{unit}: `{' '.join(command)}` did not end within {SYSTEMCTL_TIMEOUT_S:g} s") from None
    if child.returncode and not tolerate:
        said = errors.decode(errors="replace").strip() or f"exit status {child.returncode}"
        raise HostError(f"{unit}: {said}", hint=f"see: systemctl status {unit}")
    return output.decode(errors="replace")
