"""Every error Outrider raises on purpose.

    OutriderError
    |-- FleetError              the fleet file is refused; carries every problem found
    |-- ReleaseError            code of an agent could not be fetched, verified or unpacked
    |-- UnknownAgent            no agent of that name is declared
    |-- CatalogueError          the catalogue file is missing, corrupt or of another version
    |-- ShimUnreachable         no shim answers on this host
    |-- HostError               something on this host is wrong: a port, a folder, a process
    |-- RolloutFailed           an agent did not get well and was put back; says what was done and what not
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


class RolloutFailed(OutriderError):
    """An agent did not get well and has its earlier documents back. `done`: what was done; `not_done`: agents left."""

    def __init__(self, message: str, *, done: list[str], not_done: list[str], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.done = done
        self.not_done = not_done


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
