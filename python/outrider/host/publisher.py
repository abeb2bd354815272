"""Joins what this host knows at first hand with what Consul says of the others, and publishes the catalogue."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from outrider.calls.endpoint import port_of
from outrider.discovery.catalogue import CatalogueWriter
from outrider.discovery.feed import View
from outrider.discovery.records import Entry, Instance, Role
from outrider.discovery.routing import Evidence, Observed, routing_set
from outrider.errors import CatalogueError
from outrider.host.peers import NO_EVIDENCE
from outrider.host.peers import Evidence as PeerEvidence
from outrider.host.state import Local
from outrider.registry.layout import TAG, PlacementDoc
from outrider.registry.leases import Lease
from outrider.registry.services import CheckState, Service

log = logging.getLogger("outrider.catalogue")

MAINTENANCE = "_node_maintenance"
# A check's output tells how certain a failure is: only a process that may still answer is worth a try in need.
SUSPICION = "probe:"


def local_evidence(local: Local) -> Evidence:
    """What routing may conclude from what the runner saw itself."""
    if local.status in ("passing", "warning"):
        return local.status
    return "suspected" if local.status == "critical" and local.detail.startswith(SUSPICION) else "gone"


def instance_of_local(local: Local, host: str, address: str) -> Instance:
    """The catalogue's record of an instance on this host."""
    return Instance(
        weight=local.placed.weight,
        agent=local.doc.name,
        instance=local.instance,
        host=host,
        address=address,
        port=local.main_port,
        ports=local.ports,
        role=local.role,
        epoch=local.epoch,
        version=local.doc.version,
        since=local.since,
    )


def instance_of_service(service: Service, node: str) -> Instance:
    """The catalogue's record of an instance that another host registered."""
    meta = service.meta
    ports = json.loads(meta.get("ports") or "{}")
    role: Role = "holder" if meta.get("role") == "holder" else "standby" if meta.get("role") == "standby" else "replica"
    return Instance(
        agent=meta.get("agent", service.name),
        instance=service.id,
        host=meta.get("host", node),
        address=service.address,
        port=service.port,
        ports={str(name): int(port) for name, port in ports.items()},
        role=role,
        epoch=int(meta.get("epoch") or 0),
        version=meta.get("version", ""),
    )


def remote_evidence(critical: Iterable[CheckState]) -> tuple[dict[str, Evidence], dict[tuple[str, str], Evidence]]:
    """Evidence from critical checks: per node (all its instances), and per node and service."""
    nodes: dict[str, Evidence] = {}
    instances: dict[tuple[str, str], Evidence] = {}
    for check in critical:
        if check.service_id:
            certain = not check.output.startswith(SUSPICION)
            instances[check.node, check.service_id] = "gone" if certain else "suspected"
        elif check.check_id == MAINTENANCE:
            nodes[check.node] = "gone"
        else:
            nodes.setdefault(check.node, "suspected")
    return nodes, instances


class Picture(Struct):
    """Who may be called, by agent, and the standbys beside them, which nobody calls."""

    entries: dict[str, Entry]
    standbys: dict[str, tuple[Instance, ...]]


def worse(evidence: Evidence, record: Instance, peers: PeerEvidence) -> Evidence:
    """Consul's evidence of an instance or the peers', whichever is worse: either may be late, and peers only warn."""
    detail = peers.instances.get((record.host, record.instance))
    if evidence == "gone" or (detail is not None and not detail.startswith(SUSPICION)):
        return "gone"
    return "suspected" if detail is not None or record.host in peers.hosts else evidence


def picture_of(
    view: View,
    locals_: Mapping[str, Local],
    leases: Mapping[str, Lease],
    host: str,
    address: str,
    last: Mapping[str, Entry],
    lacking: Collection[str] = (),
    peers: PeerEvidence = NO_EVIDENCE,
) -> Picture:
    """The whole catalogue. For this host its own knowledge wins; `last` answers for the others until Consul does.

    `lacking`: instances without a need that they require. Those of other hosts are in `warning` as ours are, or every
    host would send its callers to the others.
    `peers`: what other shims told directly. It takes out of routing and never puts in.
    """
    observed: dict[str, list[Observed]] = {name: [] for name in view.agents}
    for local in locals_.values():
        record = instance_of_local(local, host, address)
        observed.setdefault(record.agent, []).append(Observed(record, local_evidence(local)))
    others = _members_of(view, host) if view.documents_read else _last_of(last, host)
    for record, evidence in others:
        evidence = worse(evidence, record, peers)
        evidence = "warning" if evidence == "passing" and record.instance in lacking else evidence
        observed.setdefault(record.agent, []).append(Observed(by_lease(record, leases), evidence))
    weights = {
        name: _weights(doc) for name, doc in view.placements.items() if any(p.weight != 1.0 for p in doc.instances)
    }
    for name, given in weights.items():
        observed[name] = [_weighted(o, given) for o in observed.get(name, ())]
    called = {name: [o for o in seen if o.instance.role != "standby"] for name, seen in observed.items()}
    beside = {name: [o for o in seen if o.instance.role == "standby"] for name, seen in observed.items()}
    lost = {name: _lost(seen, peers.lost) for name, seen in observed.items()} if peers.lost else {}
    return Picture(
        {name: _entry(name, seen, view.placements.get(name), lost.get(name, ())) for name, seen in called.items()},
        {name: routing_set(seen) for name, seen in beside.items() if seen},
    )


def _entry(name: str, seen: Sequence[Observed], placement: PlacementDoc | None, lost: tuple[str, ...]) -> Entry:
    """Who may be called. One that gets no calls is left out while another serves; callers of what is held wait."""
    if placement and placement.held:
        return Entry(name, (), held=True, lost=lost)
    found = routing_set(seen)
    weighed = tuple(instance for instance in found if instance.weight > 0.0 and instance.status != "critical")
    return Entry(name, weighed or found, lost=lost)


def _lost(seen: Sequence[Observed], hosts: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted({observed.instance.host for observed in seen} & hosts))


def doors(view: View, host: str) -> list[tuple[str, int]]:
    """Where calls reach the instances of another host: each of these ports is open from here while the host lives."""
    found = (instance_of_service(service, host) for service in view.members.get(host, ()) if TAG in service.tags)
    return [(record.address, port_of(record)) for record in found if port_of(record)]


def _weights(doc: PlacementDoc) -> dict[tuple[str, str], float]:
    return {(placed.instance, placed.host): placed.weight for placed in doc.instances}


def _weighted(seen: Observed, weights: Mapping[tuple[str, str], float]) -> Observed:
    record = seen.instance
    return Observed(replace(record, weight=weights.get((record.instance, record.host), record.weight)), seen.evidence)


def by_lease(record: Instance, leases: Mapping[str, Lease]) -> Instance:
    """Role and epoch as the lease says, which is known sooner than what the instance's registration says.

    A holder stays one until it has given up or another has taken its place: that Consul has ended its session may be
    Consul's mistake, and it may go on by the leave of the other members.
    """
    lease = leases.get(record.agent)
    if record.role == "replica" or lease is None:
        return record
    doc = lease.doc
    holds = doc.state == "held" and (doc.holder, doc.host) == (record.instance, record.host)
    return replace(record, role="holder" if holds else "standby", epoch=doc.epoch if holds else 0)


def marked(entries: dict[str, Entry], ill: frozenset[str]) -> dict[str, Entry]:
    """With `ill` set for the instances of those names."""
    if not ill:
        return entries
    return {
        name: replace(entry, instances=tuple(replace(i, ill=i.instance in ill) for i in entry.instances))
        if any(i.instance in ill for i in entry.instances)
        else entry
        for name, entry in entries.items()
    }


def _members_of(view: View, host: str) -> Iterator[tuple[Instance, Evidence]]:
    nodes, instances = remote_evidence(view.critical)
    for node, members in view.members.items():
        for service in members:
            if node != host and TAG in service.tags:
                evidence = instances.get((node, service.id)) or nodes.get(node) or "passing"
                yield instance_of_service(service, node), evidence


def _last_of(last: Mapping[str, Entry], host: str) -> Iterator[tuple[Instance, Evidence]]:
    for entry in last.values():
        for record in entry.instances:
            if record.host != host:
                yield record, "suspected" if record.status == "critical" else record.status


class Publisher:
    """Publishes soon after every change, one publication for all changes of the same turn of the loop."""

    def __init__(self, writer: CatalogueWriter, build: Callable[[], Picture]) -> None:
        self._writer = writer
        self._build = build
        self._scheduled = False
        self._failed = ""
        self.entries: dict[str, Entry] = {}
        self.standbys: dict[str, tuple[Instance, ...]] = {}
        self.generation = 0
        self.on_published: list[Callable[[], None]] = []

    def changed(self) -> None:
        """Something may have changed: publish at the end of this turn of the loop."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.publish)

    def publish(self) -> None:
        """Build and write the catalogue now. A write that fails keeps the last snapshot and is said once."""
        self._scheduled = False
        picture = self._build()
        self.entries, self.standbys = picture.entries, picture.standbys
        try:
            self.generation = self._writer.publish(self.entries)
        except CatalogueError as error:
            if error.message != self._failed:
                log.error("%s; readers keep the last snapshot", error.message)
            self._failed = error.message
            asyncio.get_running_loop().call_later(1.0, self.changed)
            return
        if self._failed:
            log.info("the catalogue can be written again")
            self._failed = ""
        for callback in self.on_published:
            callback()

    def confirm(self) -> None:
        """The content was found to be still true."""
        self._writer.confirm()

    def serves(self, agent: str) -> bool:
        """True if at least one instance of `agent` passes."""
        entry = self.entries.get(agent)
        return entry is not None and any(instance.status != "critical" for instance in entry.instances)
