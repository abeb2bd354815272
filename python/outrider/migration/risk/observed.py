"""What was asked and what was seen: the values that a risk is assessed from. What nobody could see says why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

from outrider.host.reports import EventRow, UptimeRow
from outrider.migration.risk.change import Change
from outrider.migration.risk.source import SourceFacts
from outrider.registry.layout import AgentDoc, HostDoc, PlacementDoc

Source = Literal["health", "leases", "environments", "traffic", "record", "uptime", "outcomes", "backups"]
"""Where observations come from: the names of the fields of Observations."""


class Published(Struct, frozen=True):
    """The fleet's documents, by agent and by host."""

    agents: Mapping[str, AgentDoc]
    placements: Mapping[str, PlacementDoc]
    hosts: Mapping[str, HostDoc]


class Question(Struct, frozen=True):
    """Which migration is meant.

    target: the host that it goes to; empty for the one that placement would choose, or its own if there is no other
    instance: the one that leaves; empty for the first that is not on the target
    source: what the agent's code says; None if it was not read, for the reason in `unread`
    change: what differs in the new version; None if the version stays; a text says why that is not known
    readable: whether the old version can read the files that the new one wrote; None if nobody says
    """

    agent: str
    target: str = ""
    instance: str = ""
    source: SourceFacts | None = None
    unread: str = "nobody named its source"
    change: Change | str | None = None
    readable: bool | None = None


class Traffic(Struct, frozen=True):
    """Calls to one agent.

    calls, failed: of some time before, `source` says which
    partial: why there may be more calls than these; empty if these are all
    peak_per_s: the most of the last day; None if that is not known
    """

    per_s: float
    calls: float
    failed: float
    source: str
    partial: str = ""
    peak_per_s: float | None = None


class Record(Struct, frozen=True):
    """What a shim remembers of the fleet. `since`: Unix seconds from which on it saw everything."""

    since: float
    events: tuple[EventRow, ...] = ()


class Outcome(Struct, frozen=True):
    """How a migration ended. `ended`: Unix seconds; `way_back_s`: what the rollback took, None without one."""

    agent: str
    target: str
    failed: bool
    ended: float
    way_back_s: float | None = None


class Rehearsal(Struct, frozen=True):
    """A migration that ended before its cutover, and would have gone on. `plan`: of its spec; `ended`: Unix seconds."""

    id: str
    plan: str
    ended: float


class Proof(Struct, frozen=True):
    """A backup. `verified_at`: Unix seconds at which it was restored into an empty place, 0 if it never was."""

    id: str
    host: str = ""
    verified_at: float = 0.0
    bytes: int = 0


class Observations(Struct, frozen=True):
    """What a running fleet shows at Unix time `at`. None: nobody could see it, for the reason in `silent`.

    health: agent to how many of its instances serve
    leases: singleton to the instance that holds its lease, empty if nobody does
    environments: host to what its shim tells of it (outrider.host.environment)
    outcomes: migrations that ended, oldest first; rehearsals: as well
    backups: agent to the last proof of each level
    """

    at: float
    health: Mapping[str, int] | None = None
    leases: Mapping[str, str] | None = None
    environments: Mapping[str, Mapping[str, str]] | None = None
    traffic: Mapping[str, Traffic] | None = None
    record: Record | None = None
    uptime: Mapping[str, UptimeRow] | None = None
    outcomes: tuple[Outcome, ...] | None = None
    rehearsals: tuple[Rehearsal, ...] | None = None
    backups: Mapping[str, Mapping[str, Proof]] | None = None
    silent: Mapping[Source, str] = field(default_factory=dict)
    running: bool = True  # False: only the fleet file was looked at

    def why(self, source: Source) -> str:
        """Why nobody could see it."""
        if not self.running:
            return "only the fleet file was looked at"
        return self.silent.get(source, "nobody asked")
