"""The whole fleet as this shim sees it: what `outrider status` shows, and what the history is told from."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from outrider.failover.explain import drained_hosts
from outrider.host.reports import InstanceReport, StatusReport, Summary, status_said

if TYPE_CHECKING:
    from outrider.daemon.shim import Shim


def instance_reports(shim: Shim) -> list[InstanceReport]:
    """Every instance that documents place anywhere: this host's at first hand, the others' as Consul says."""
    age = max(0.0, time.monotonic() - shim.confirmed_at) if shim.confirmed_at else time.time() - shim.started
    view = shim.feed.view
    served = {(i.instance, i.host): i for entry in shim.publisher.entries.values() for i in entry.instances}
    served |= {(i.instance, i.host): i for instances in shim.publisher.standbys.values() for i in instances}
    outputs = {(check.service_id, check.node): check.output for check in view.critical if check.service_id}
    services = {(service.id, node): service for node, found in view.members.items() for service in found}
    reports = [local_report(shim, name) for name in shim.locals]
    for placement in view.placements.values():
        for placed in placement.instances:
            if placed.host == shim.config.host and placed.instance in shim.locals:
                continue
            instance = served.get((placed.instance, placed.host))
            output = outputs.get((placed.instance, placed.host), "")
            said = "stopped" if placed.state == "stopped" else status_said(output)
            lacks = shim.degradation.reasons.get(placed.instance, "")
            service = services.get((placed.instance, placed.host))
            reports.append(
                InstanceReport(
                    agent=placement.agent,
                    instance=placed.instance,
                    host=placed.host,
                    address=instance.address if instance else "",
                    port=instance.port if instance else 0,
                    status=instance.status if instance else said,
                    role=instance.role if instance else "",
                    epoch=instance.epoch if instance else 0,
                    version=placed.version,
                    since=instance.since if instance else 0.0,
                    age_s=age,
                    detail=output or (lacks if instance else "not registered"),
                    generation=int(service.meta.get("generation") or 0) if service else 0,
                )
            )
    return sorted(reports, key=lambda report: report.instance)


def status_of(shim: Shim) -> StatusReport:
    """The same with its counts."""
    reports = instance_reports(shim)
    summary = Summary(
        agents=len({report.agent for report in reports}),
        instances=len(reports),
        passing=sum(report.status == "passing" for report in reports),
        hosts=len({report.host for report in reports}),
        consul="reachable" if shim.reachable else "unreachable",
    )
    return StatusReport(shim.config.fleet, summary, tuple(reports), drained_hosts(shim.feed.view.hosts))


def local_report(shim: Shim, name: str) -> InstanceReport:
    """One instance of this host."""
    local = shim.locals[name]
    return InstanceReport(
        agent=local.doc.name,
        instance=local.instance,
        host=shim.config.host,
        address=shim.config.address,
        port=local.main_port,
        status=local.status,
        role=local.role,
        epoch=local.epoch,
        version=local.doc.version,
        since=local.since,
        age_s=0.0,
        detail=local.detail,
        pid=local.pid,
        restarts=local.restarts,
        generation=local.generation,
    )
