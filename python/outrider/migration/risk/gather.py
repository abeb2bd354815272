"""Reads what a risk is assessed from: documents, health and records in Consul, calls and events from the shim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct, field

from outrider.errors import OutriderError
from outrider.host.reports import CallsReport, EventsReport, UptimeReport, UptimeRow
from outrider.migration.host_docs import plain, read_host_docs
from outrider.migration.risk.factors import REHEARSED_S, counted
from outrider.migration.risk.observed import (
    Observations,
    Outcome,
    Proof,
    Published,
    Record,
    Rehearsal,
    Source,
    Traffic,
)
from outrider.migration.risk.prometheus import Prometheus
from outrider.migration.staged.journal import read_all
from outrider.migration.staged.records import Journal
from outrider.migration.store import ConsulStore
from outrider.registry.client import Consul, decode
from outrider.registry.kv import list_docs
from outrider.registry.layout import BACKUPS, MIGRATIONS, SHIM
from outrider.registry.leases import LEASES, decode_leases

T = TypeVar("T")
EVENTS = 10_000  # as many as a shim remembers
SERVES = ("passing", "warning")


class Shim(Protocol):
    """What is asked of this host's shim (outrider.host.shim_client)."""

    def get(self, path: str, kind: type[T]) -> T:
        """GET a JSON answer. Raises OutriderError."""


class _Registered(Struct):
    ServiceMeta: dict[str, str] = field(default_factory=dict)


def read_published(consul: Consul) -> Published:
    """The documents of the fleet. Raises ConsulError, and OutriderError if there is no fleet."""
    docs = ConsulStore(consul).read()
    agents = {name: each.agent for name, each in docs.items() if each.agent}
    if not agents:
        raise OutriderError(f"Consul at {consul.address} holds no fleet", hint="run site.yml, or name a file: --fleet")
    placements = {name: each.placement for name, each in docs.items() if each.placement}
    return Published(agents, placements, plain(read_host_docs(consul)))


def ended_journals(consul: Consul) -> tuple[Journal, ...]:
    """Of migrations that have ended, oldest first. Raises OutriderError for one that is damaged."""
    # A list leaves out what the token may not read; a single key is refused. Without this, nothing looks like none.
    consul.get(f"/v1/kv/{MIGRATIONS}")
    read = read_all(consul)
    if read.problems:
        raise OutriderError(f"journals cannot be read: {'; '.join(read.problems[:3])}")
    ended = [(journal.ended.at, journal) for journal in read.journals.values() if journal.ended]
    return tuple(journal for _, journal in sorted(ended, key=lambda each: each[0]))


def outcome_of(journal: Journal) -> Outcome | None:
    """How a migration ended. One that people cancelled, never began or was rehearsed says nothing of the next."""
    last = journal.ended
    if last is None or last.outcome == "cancelled" or journal.spec.rehearse:
        return None
    back = next((entry.at for entry in journal.entries if entry.what == "rollback"), None)
    way_back_s = round(last.at - back, 3) if back is not None and last.outcome == "rolled_back" else None
    asked = any(entry.what == "asked_back" for entry in journal.entries)
    failed = last.outcome == "rolled_back" and not asked
    return Outcome(journal.spec.agent, journal.spec.target.host, failed, last.at, way_back_s)


def rehearsal_of(journal: Journal) -> Rehearsal | None:
    """A rehearsal, if it is one in which all went well."""
    last = journal.ended
    well = last is not None and last.outcome == "rehearsed"
    return Rehearsal(journal.id, journal.spec.plan, last.at) if last and well else None


def plans_rehearsed(journals: Iterable[Journal], now: float) -> frozenset[str]:
    """Those for which a rehearsal still counts."""
    found = filter(None, map(rehearsal_of, journals))
    return frozenset(each.plan for each in found if 0 <= now - each.ended <= REHEARSED_S)


def observe(
    consul: Consul,
    shim: Shim,
    published: Published,
    now: float,
    *,
    prometheus: Prometheus | None = None,
) -> Observations:
    """Everything that can be seen now. What cannot is said, not raised."""
    silent: dict[Source, str] = {}

    def seen(source: Source, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except OutriderError as error:
            silent[source] = error.message
            return None

    environments = seen("environments", lambda: _environments(consul))
    hosts = environments.keys() if environments else published.hosts.keys()
    journals = seen("outcomes", lambda: ended_journals(consul))
    return Observations(
        at=now,
        health=seen("health", lambda: _health(consul, published)),
        leases=seen("leases", lambda: _leases(consul)),
        environments=environments,
        traffic=seen("traffic", lambda: _traffic(shim, prometheus, published, set(hosts))),
        record=seen("record", lambda: _record(shim, now)),
        uptime=seen("uptime", lambda: _uptime(shim)),
        outcomes=_each(outcome_of, journals),
        rehearsals=_each(rehearsal_of, journals),
        backups=seen("backups", lambda: _backups(consul, published)),
        silent=silent,
    )


def _each(made: Callable[[Journal], T | None], journals: tuple[Journal, ...] | None) -> tuple[T, ...] | None:
    if journals is None:
        return None
    return tuple(found for journal in journals if (found := made(journal)) is not None)


def _listed(consul: Consul, prefix: str, kind: type[T]) -> dict[str, T]:
    # A list leaves out what the token may not read; a single key is refused. Without this, nothing looks like none.
    consul.get(f"/v1/kv/{prefix}")
    docs = list_docs(consul, prefix, kind)
    if docs.problems:
        raise OutriderError(f"documents cannot be read: {'; '.join(docs.problems[:3])}")
    return {key: doc for key, (doc, _) in docs.docs.items()}


def _health(consul: Consul, published: Published) -> Mapping[str, int]:
    hosts = {placed.host for doc in published.placements.values() for placed in doc.instances}
    seen = ConsulStore(consul).observe(hosts)
    serve: Counter[str] = Counter()
    for name, doc in published.placements.items():
        spots = {(placed.instance, placed.host) for placed in doc.instances}
        serve[name] = sum(spot in seen and seen[spot].status in SERVES for spot in spots)
    return serve


def _leases(consul: Consul) -> Mapping[str, str]:
    consul.get(f"/v1/kv/{LEASES}")
    leases, problems = decode_leases(consul.get(f"/v1/kv/{LEASES}", params={"recurse": ""}))
    if problems:
        raise OutriderError(f"leases cannot be read: {'; '.join(problems[:3])}")
    return {name: lease.doc.holder if lease.session else "" for name, lease in leases.items()}


def _environments(consul: Consul) -> Mapping[str, Mapping[str, str]]:
    found = decode(consul.get(f"/v1/catalog/service/{SHIM}").body or b"[]", list[_Registered])
    return {each.ServiceMeta["host"]: each.ServiceMeta for each in found if "host" in each.ServiceMeta}


def _traffic(shim: Shim, prometheus: Prometheus | None, published: Published, hosts: set[str]) -> Mapping[str, Traffic]:
    if prometheus:
        return prometheus.traffic(published.agents, hosts)
    rows = shim.get("/v1/calls", CallsReport).calls
    others = len(hosts) - 1
    partial = f"calls from {counted(others, 'other host')} are not (--prometheus)" if others > 0 else ""
    found = {}
    for name in published.agents:
        mine = [row for row in rows if row.agent == name]
        per_s, calls, failed = (sum(row.per_s for row in mine), sum(row.calls for row in mine),
                                sum(row.failed for row in mine))  # fmt: skip
        found[name] = Traffic(per_s, calls, failed, "this host's callers, the last 10 s", partial)
    return found


def _record(shim: Shim, now: float) -> Record:
    events = shim.get(f"/v1/events?limit={EVENTS}", EventsReport).events
    return Record(min((event.at for event in events), default=now), events)


def _uptime(shim: Shim) -> Mapping[str, UptimeRow]:
    return {row.agent: row for row in shim.get("/v1/uptime", UptimeReport).agents}


def _backups(consul: Consul, published: Published) -> Mapping[str, Mapping[str, Proof]]:
    found: dict[str, Any] = _listed(consul, BACKUPS, msgspec.Raw)
    try:
        return {
            name: msgspec.json.decode(raw, type=dict[str, Proof])
            for name, raw in found.items()
            if name in published.agents
        }
    except msgspec.MsgspecError as error:
        raise OutriderError(f"a record under {BACKUPS} cannot be read: {error}") from error
