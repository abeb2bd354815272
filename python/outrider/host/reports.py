"""What a shim answers on its Unix socket: the types that the shim encodes and the command line decodes."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

InstanceStatus = Literal["starting", "passing", "warning", "critical", "stopped", "parked", "missing"]


class InstanceReport(Struct, frozen=True):
    """One instance. `since`: Unix seconds of its last change; `age_s`: age of this knowledge; `detail`: why."""

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


class Summary(Struct, frozen=True):
    """Counts over the fleet."""

    agents: int
    instances: int
    passing: int
    hosts: int
    consul: Literal["reachable", "unreachable"] = "reachable"


class StatusReport(Struct, frozen=True):
    """`GET /v1/status`."""

    fleet: str
    summary: Summary
    instances: tuple[InstanceReport, ...] = field(default_factory=tuple)


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
    """Answer to start, stop and restart: the instances that were told."""

    action: str
    instances: tuple[str, ...]
