"""Every error Outrider raises on purpose.

    OutriderError
    |-- FleetError              the fleet file is refused; carries every problem found
    |-- ReleaseError            code of an agent could not be fetched, verified or unpacked
    |-- UnknownAgent            no agent of that name is declared
    |-- CatalogueError          the catalogue file is missing, corrupt or of another version
    |-- ShimUnreachable         no shim answers on this host
    |-- HostError               something on this host is wrong: a port, a folder, a process
    |-- UnknownMigration        no migration of that id is in Consul
    |-- MigrationRefused        it cannot be done as it was asked; nothing was changed
    |-- RolloutFailed           an agent did not get well and was put back; says what was done and what not
    |-- BackupError             a backup could not be made or restored
    |   `-- BackupDamaged       it is not what it was when it was made; names the backup and the file
    |-- FrameError              bytes that are no frame of ours
    |-- CallError               a call between agents gave no answer
    |   |-- NoInstance          nobody serves the agent, or every circuit to it is open: nothing was sent
    |   |-- CallTimeout         no answer before the deadline
    |   |-- ConnectionLost      the instance went away; `sent` says whether it may have worked
    |   |-- Overloaded          it has as many calls as it takes: not worked on
    |   |-- Draining            it is stopping: not worked on
    |   |-- NotHolder           it is a singleton's standby, or was its holder: not worked on
    |   |-- CallRefused         it will not: an unknown method, wrong arguments, or its own refusal
    |   `-- CallFailed          the method raised
    `-- ConsulError             Consul answered with an error
        |-- ConsulUnreachable   nothing answered in time (exit code 3)
        |-- ConsulDenied        the token may not do that
        |-- ConsulConflict      a check-and-set lost against another writer
        `-- Locked              another run holds the lock

A message says what happened and where; `hint` says what to do next.
"""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONSUL_UNREACHABLE = 3


class OutriderError(Exception):
    """Base of all errors that a user can act on."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class FleetError(OutriderError):
    """A fleet file is refused. `problems` holds one line each: place, what was found, what is allowed."""

    def __init__(self, problems: list[str], *, hint: str = "") -> None:
        self.problems = problems
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        super().__init__(f"the fleet is refused, {count}:\n" + "\n".join(problems), hint=hint)


class ReleaseError(OutriderError):
    """An agent's code could not be fetched, did not match its checksum or could not be unpacked."""


class UnknownAgent(OutriderError):
    """No agent of that name is declared."""


class CatalogueError(OutriderError):
    """The catalogue file is missing, corrupt or written by another version."""


class ShimUnreachable(OutriderError):
    """No shim answers on this host."""


class HostError(OutriderError):
    """Something on this host is wrong: a port, a folder, a process."""


class UnknownMigration(OutriderError):
    """No migration of that id is in Consul."""


class MigrationRefused(OutriderError):
    """A migration, or what was asked of one, cannot be done; nothing was changed. `problems`: every reason."""

    def __init__(self, problems: list[str], *, hint: str = "") -> None:
        self.problems = problems
        super().__init__("\n".join(problems), hint=hint)


class RolloutFailed(OutriderError):
    """An agent did not get well and has its earlier documents back. `done`: what was done; `not_done`: agents left."""

    def __init__(self, message: str, *, done: list[str], not_done: list[str], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.done = done
        self.not_done = not_done


class BackupError(OutriderError):
    """A backup could not be made or restored."""


class BackupDamaged(BackupError):
    """A backup is not what it was when it was made; the message names it, the file, what was expected and found."""


class FrameError(OutriderError):
    """Bytes that are no frame of ours, or one that is too large."""


class CallError(OutriderError):
    """A call between agents gave no answer; `agent`, `method`, `instance`, `attempts` and `trace` say which.

    kind: short name of the reason, a label of metrics
    safe: nobody worked on it, so that it may be sent again whatever the method does
    """

    kind = "error"
    safe = False
    agent = method = instance = trace = ""
    attempts = 0


class NoInstance(CallError):
    """Nobody serves the agent, or every circuit to it is open; nothing was sent."""

    kind = "no_instance"
    safe = True


class CallTimeout(CallError):
    """No answer came before the deadline."""

    kind = "timeout"


class ConnectionLost(CallError):
    """The instance could not be reached, or went away before it answered. `safe` if it cannot have got the call."""

    kind = "lost"

    def __init__(self, message: str, *, safe: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.safe = safe


class Overloaded(CallError):
    """The instance has as many calls as it takes, and did not begin this one."""

    kind = "overloaded"
    safe = True


class Draining(CallError):
    """The instance is stopping, and did not begin this call."""

    kind = "draining"
    safe = True


class NotHolder(CallError):
    """The instance holds no lease of its singleton, and did not begin this call; the message says who does."""

    kind = "not_holder"
    safe = True


class CallRefused(CallError):
    """The instance will not: an unknown method, wrong arguments, or a refusal that the method itself raised."""

    kind = "refused"


class CallFailed(CallError):
    """The method raised; the message names the exception."""

    kind = "failed"


class ConsulError(OutriderError):
    """Consul answered with an error. `status` is the HTTP status, 0 if there was none."""

    def __init__(self, message: str, *, status: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class ConsulUnreachable(ConsulError):
    """Consul did not answer in time."""

    exit_code = EXIT_CONSUL_UNREACHABLE


class ConsulDenied(ConsulError):
    """The token may not do that."""


class ConsulConflict(ConsulError):
    """A check-and-set lost against another writer."""


class Locked(ConsulError):
    """Another run holds the lock; the message says who and since when."""


# What an agent answers instead of a reply, by `kind`.
REFUSALS: dict[str, type[CallError]] = {
    error.kind: error for error in (CallTimeout, Overloaded, Draining, NotHolder, CallRefused, CallFailed)
}
