"""What a shim answers on its Unix socket: the types that the shim encodes and the command line decodes."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

InstanceStatus = Literal["starting", "passing", "warning", "critical", "stopped", "parked", "missing"]


def status_said(output: str) -> InstanceStatus:
    """The status that a critical check's output names before its colon, so far as others can do with it."""
    kind = output.partition(":")[0]
    return "starting" if kind == "starting" else "parked" if kind == "parked" else "critical"


class InstanceReport(Struct, frozen=True):
    """One instance. `since`: Unix seconds of its last change; `age_s`: age of this knowledge; `detail`: why.

    generation: the restarts that had been asked for when what serves, or last served, was started
    """

    agent: str
    instance: str
    host: str
    address: str
    port: int
    status: InstanceStatus
    role: str
    epoch: int
    version: str
    since: float
    age_s: float
    detail: str = ""
    pid: int | None = None
    restarts: int = 0
    generation: int = 0


class Summary(Struct, frozen=True):
    """Counts over the fleet."""

    agents: int
    instances: int
    passing: int
    hosts: int
    consul: Literal["reachable", "unreachable"] = "reachable"


class StatusReport(Struct, frozen=True):
    """`GET /v1/status`. `drained`: hosts that operators want empty, and why."""

    fleet: str
    summary: Summary
    instances: tuple[InstanceReport, ...] = field(default_factory=tuple)
    drained: dict[str, str] = field(default_factory=dict)


class Finding(Struct, frozen=True):
    """One thing that doctor looked at. `mend`: the command or change that helps, empty when all is well."""

    check: str
    ok: bool
    found: str
    mend: str = ""


class DoctorReport(Struct, frozen=True):
    """`GET /v1/doctor`: what the shim itself sees on its host."""

    host: str
    findings: tuple[Finding, ...] = field(default_factory=tuple)


class ActionReport(Struct, frozen=True):
    """Answer to start, stop and restart: the instances that were told, and the generation of each from now on."""

    action: str
    instances: tuple[str, ...]
    generations: dict[str, int] = {}


class CallRow(Struct, frozen=True):
    """Calls of one caller to one agent. `per_s`, `p50_s`, `p99_s`: of the last ten seconds; the rest since it began."""

    caller: str
    agent: str
    calls: int
    per_s: float
    failed: int
    outcomes: dict[str, int]
    retries: int
    in_flight: int
    p50_s: float | None
    p99_s: float | None
    methods: dict[str, int]


class SampleRow(Struct, frozen=True):
    """A call that failed or was slow. `at`: Unix seconds; `trace`: its W3C traceparent."""

    at: float
    caller: str
    agent: str
    method: str
    outcome: str
    seconds: float
    trace: str


class CallsReport(Struct, frozen=True):
    """`GET /v1/calls`: who calls whom on this host."""

    calls: tuple[CallRow, ...] = field(default_factory=tuple)
    samples: tuple[SampleRow, ...] = field(default_factory=tuple)


class CircuitRow(Struct, frozen=True):
    """One circuit. `ill`: no caller of this host gets answers out of the instance, so others are called first."""

    caller: str
    agent: str
    instance: str
    state: Literal["closed", "open", "half-open"]
    reason: str
    openings: int
    in_flight: int
    ill: bool


class BreakersReport(Struct, frozen=True):
    """`GET /v1/breakers`: the circuits of this host's callers."""

    circuits: tuple[CircuitRow, ...] = field(default_factory=tuple)


class EventRow(Struct, frozen=True):
    """One change: `what` happened, and how long it was otherwise before. Times in seconds, `at` since 1970."""

    at: float
    what: str
    agent: str
    instance: str
    host: str
    why: str
    epoch: int
    lasted_s: float


class EventsReport(Struct, frozen=True):
    """`GET /v1/events`: oldest first."""

    events: tuple[EventRow, ...] = field(default_factory=tuple)


class UptimeRow(Struct, frozen=True):
    """One agent: the share of the observed time in which callers had an instance to call, by window."""

    agent: str
    shares: dict[str, float | None]
    observed_s: float
    down_s: float


class UptimeReport(Struct, frozen=True):
    """`GET /v1/uptime`: `fleet` over all agents."""

    fleet: dict[str, float | None]
    agents: tuple[UptimeRow, ...] = field(default_factory=tuple)
