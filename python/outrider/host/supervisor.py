"""What keeps processes: the small interface that child processes and systemd units both fill."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct, field


class Launch(Struct, frozen=True):
    """Everything that one process is started with. It holds no secret value, only paths of secrets.

    user: system user, ignored where the shim is not privileged
    stop_timeout_s: seconds from SIGTERM to SIGKILL
    secrets: names of the variables in `env` that hold the path of a secret
    """

    instance: str
    agent: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    log_path: str
    user: str | None = None
    version: str = ""
    stop_timeout_s: float = 5.0
    secrets: tuple[str, ...] = ()


class Process(Struct, frozen=True):
    """One running process. `started`: clock ticks from boot to its start, which with `pid` identifies it."""

    instance: str
    pid: int
    started: int
    version: str = ""


class Exit(Struct, frozen=True):
    """How a process ended. Both `code` and `signal` are None if nobody could know it."""

    code: int | None = None
    signal: int | None = None
    reason: str = field(default="")


Callback = Callable[[Process, Exit], None]
Died = Callable[[Process], None]


class Supervisor(Protocol):
    """Starts, watches and stops processes that outlive the shim. All methods are called on the event loop."""

    async def start(self, launch: Launch) -> Process:
        """Start it and return as soon as it runs its program. Raises HostError if it cannot."""
        ...

    async def stop(self, process: Process, timeout_s: float) -> None:
        """SIGTERM to it; SIGKILL to its whole session after `timeout_s`. Returns when it is gone; gone is no error."""
        ...

    async def kill(self, process: Process) -> None:
        """SIGKILL to its whole session, for one that hangs and cannot obey. Its death is told as any other."""
        ...

    def adopt(self) -> list[Process]:
        """Running instances that an earlier shim left, one process each. May be called again at any time."""
        ...

    def watch_exit(self, process: Process, died: Died, ended: Callback) -> None:
        """Call `died` on the event loop within about a millisecond of its death (soon, if dead already), then `ended`.

        How it ended may take longer to learn than that it did. Each is called once.
        """
        ...

    def forget(self, instance: str) -> None:
        """Drop what is saved and watched for it. The process is left alone."""
        ...


def exit_of(returncode: int | None) -> Exit:
    """An Exit from a return code as subprocess gives it: negative for a signal, None for unknown."""
    if returncode is None:
        return Exit(reason="how is not known: an earlier shim had started it")
    if returncode >= 0:
        return Exit(code=returncode, reason=f"exit status {returncode}")
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return Exit(signal=-returncode, reason=f"killed by {name}")
