"""What the shim itself sees wrong on its host."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from outrider.host.reports import DoctorReport, Finding

if TYPE_CHECKING:
    from outrider.daemon.shim import Shim


def examine(shim: Shim) -> DoctorReport:
    """Look at everything once."""
    return DoctorReport(shim.config.host, tuple(_findings(shim)))


def _findings(shim: Shim) -> Iterator[Finding]:
    at = f"{shim.config.consul.host}:{shim.config.consul.port}"
    age = time.monotonic() - shim.confirmed_at if shim.confirmed_at else None
    if shim.reachable and age is not None and age < 5:
        yield Finding("consul", True, f"{at} confirmed the catalogue {age:.1f} s ago")
    else:
        known = "never confirmed" if age is None else f"last confirmed {age:.1f} s ago"
        yield Finding(
            "consul", False, f"{at} does not answer with a leader; {known}", "start the Consul agent of this host"
        )
    documents = len(shim.feed.view.agents)
    published = documents > 0 and not shim.feed.documents_lost
    found = f"{documents} agents are published in Consul"
    if shim.feed.documents_lost:
        found = f"Consul lost the documents; {documents} agents are kept as they were"
    yield Finding("documents", published, found, "" if published else "publish the fleet: run playbooks/site.yml")
    ill = [local for local in shim.locals.values() if local.status not in ("passing", "warning", "stopped")]
    yield Finding("instances", not ill, f"{len(shim.locals) - len(ill)} of {len(shim.locals)} instances here are well")
    if shim.local_ports:
        trouble = shim.local_ports.trouble
        hint = "journalctl -u outrider-local-ports" if trouble else ""
        yield Finding("local ports", not trouble, trouble or "HAProxy knows who serves what this host needs", hint)
    for local in ill:
        yield Finding(local.instance, False, local.detail or local.status, f"outrider logs {local.instance}")
