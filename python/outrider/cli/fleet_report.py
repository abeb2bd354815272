"""The state of the fleet: from this host's shim, or from Consul where no shim answers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from outrider.errors import ConsulUnreachable, OutriderError, ShimUnreachable
from outrider.host.reports import InstanceReport, InstanceStatus, StatusReport, Summary, status_said

if TYPE_CHECKING:
    from outrider.registry.client import Consul
    from outrider.registry.layout import AgentDoc, Placed, PlacementDoc
    from outrider.registry.services import CheckState, Service


def fleet_report(runtime: Path) -> StatusReport:
    """The fleet as it is. Without a shim it is read from Consul, and stderr says so.

    Raises ConsulUnreachable if neither answers, OutriderError if Consul holds no fleet.
    """
    from outrider.host.shim_client import ShimClient

    try:
        return ShimClient(runtime).get("/v1/status", StatusReport)
    except ShimUnreachable as error:
        found = report_from_consul(runtime, error)
        print(f"outrider: {error.message}; Consul is asked instead", file=sys.stderr)
        return found


def report_from_consul(runtime: Path, shim: ShimUnreachable) -> StatusReport:
    """The fleet as Consul has it. Raises as `fleet_report`; `shim`: why the shim is not asked."""
    from outrider.cli.where import consul_of
    from outrider.registry.kv import list_docs
    from outrider.registry.layout import FLEET, PLACEMENT, AgentDoc, PlacementDoc

    consul = consul_of(runtime)
    try:
        agents = {name: doc for name, (doc, _) in list_docs(consul, FLEET, AgentDoc).docs.items()}
        placements = {name: doc for name, (doc, _) in list_docs(consul, PLACEMENT, PlacementDoc).docs.items()}
        if not placements:
            raise OutriderError(f"{shim.message}, and Consul at {consul.address} holds no fleet", hint=shim.hint)
        hosts = {placed.host for placement in placements.values() for placed in placement.instances}
        return _read(consul, agents, placements, hosts)
    except ConsulUnreachable as error:
        raise ConsulUnreachable(f"{shim.message}, and {error.message}", hint=shim.hint) from error


def _read(
    consul: Consul, agents: Mapping[str, AgentDoc], placements: Mapping[str, PlacementDoc], hosts: set[str]
) -> StatusReport:
    from outrider.registry.kv import list_docs
    from outrider.registry.layout import HOSTS, HostDoc
    from outrider.registry.services import critical, node_services

    checks = critical(consul.get("/v1/health/state/any"))
    by_service = {(check.node, check.service_id): check for check in checks if check.service_id}
    down = {check.node: check for check in checks if not check.service_id and check.status == "critical"}
    reports = []
    for host in sorted(hosts):
        services = {service.id: service for service in node_services(consul, host)}
        for name, placement in placements.items():
            reports += [
                _instance(name, p, services.get(p.instance), by_service.get((host, p.instance)), down.get(host))
                for p in placement.instances
                if p.host == host
            ]
    summary = Summary(
        agents=len({report.agent for report in reports}),
        instances=len(reports),
        passing=sum(report.status == "passing" for report in reports),
        hosts=len(hosts),
    )
    fleet = next((doc.fleet for doc in agents.values()), "")
    known = {name: doc for name, (doc, _) in list_docs(consul, HOSTS, HostDoc).docs.items()}
    found = tuple(sorted(reports, key=lambda report: report.instance))
    return StatusReport(fleet, summary, found, {name: doc.reason for name, doc in known.items() if doc.closed})


def _instance(
    agent: str, placed: Placed, service: Service | None, check: CheckState | None, down: CheckState | None
) -> InstanceReport:
    meta = service.meta if service else {}
    status, detail = judged(placed, service is not None, check, down)
    return InstanceReport(
        agent=agent,
        instance=placed.instance,
        host=placed.host,
        address=service.address if service else "",
        port=service.port if service else 0,
        status=status,
        role=meta.get("role", ""),
        epoch=int(meta.get("epoch") or 0),
        version=meta.get("version") or placed.version,
        since=float(meta.get("since") or 0),
        age_s=0.0,
        detail=detail,
    )


def judged(
    placed: Placed, registered: bool, check: CheckState | None, down: CheckState | None
) -> tuple[InstanceStatus, str]:
    """An instance's status and why, from what Consul knows. A host whose own check fails takes its instances along."""
    output = check.output.strip() if check else ""
    if placed.state == "stopped" and (not registered or output.startswith("stopped")):
        return "stopped", output
    if not registered:
        return "missing", "not registered in Consul"
    if down is not None:
        return "critical", f"host {placed.host}: {down.check_id} is critical: {down.output.strip()}"
    if check is None:
        return "critical", "has no check in Consul"
    if check.status == "passing":
        return "passing", output
    if check.status == "warning":
        return "warning", output
    return status_said(output), output
