"""A person gives up for good what a new instance accepted on a host that does not come back. Pure."""

from __future__ import annotations

import time
from collections.abc import Collection

from outrider.migration.staged.records import Journal
from outrider.registry.leases import Lease


def not_lost(journal: Journal, lease: Lease | None, lost: Collection[str]) -> str:
    """Why nothing is to be given up; empty if nothing else is left. `lost`: those of its two hosts that are."""
    source, target = journal.spec.source, journal.spec.target
    enough = f"`outrider migrate resolve {journal.id} --back` is enough"
    heir = lease.doc.heir if lease and lease.doc.state == "released" else None
    if journal.spec.strategy != "state":
        return f"it takes no state along: {enough}"
    if lease is None or lease.doc.holder != target.instance or (heir and heir.instance == source.instance):
        return f"{source.instance} has all that was accepted: {enough}"
    if target.host not in lost:
        return f"{target.host} is not lost, and has what {target.instance} accepted: {enough}"
    if lease.session:
        return f"{target.host} may still hold the lease: wait until Consul has ended its session"
    if source.host in lost:
        return f"{source.host} is lost too: {source.instance} could not go on without what is given up"
    return ""


def lost_since(journal: Journal) -> float:
    """Unix seconds: what was accepted before, the old instance has."""
    return max((entry.at for entry in journal.entries if entry.step == "hand over"), default=journal.spec.at)


def loss_said(journal: Journal, by: str, said: str) -> str:
    """For the journal."""
    target = journal.spec.target
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(lost_since(journal)))
    return f"{by} gave up what {target.instance} on {target.host} accepted since {since}: {said}"
