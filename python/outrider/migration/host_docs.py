"""What the inventory says of each host, published beside the placements; what operators say of it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from outrider.errors import ConsulConflict, ConsulError
from outrider.fleet.spec import Host
from outrider.registry.client import Consul
from outrider.registry.kv import Change, Docs, list_docs, put_docs
from outrider.registry.layout import HOSTS, HostDoc
from outrider.registry.lock import RunLock

TRIES = 5


class HostChange(Struct, frozen=True):
    """One host's document as it is and as it should be; None where there is none."""

    name: str
    before: HostDoc | None
    after: HostDoc | None


def host_changes(current: Mapping[str, HostDoc], hosts: Sequence[Host], *, prune: bool) -> list[HostChange]:
    """What differs, by name. With `prune` a host that the inventory no longer has loses its document."""
    wanted = {host.name: host for host in hosts}
    found = []
    for name in sorted(current.keys() | wanted.keys() if prune else wanted):
        before, host = current.get(name), wanted.get(name)
        after = None if host is None else replace(before, host=host) if before else HostDoc(host)
        if before != after:
            found.append(HostChange(name, before, after))
    return found


def said(changes: Sequence[HostChange]) -> list[str]:
    """The changes in one line, or none."""
    gone = [change.name for change in changes if change.after is None]
    described = [change.name for change in changes if change.after]
    lines = [f"describe host {', '.join(described)}"] if described else []
    return lines + ([f"forget host {', '.join(gone)}"] if gone else [])


def read_host_docs(consul: Consul) -> Docs[HostDoc]:
    """The documents of all hosts. Raises ConsulError, also for one that is malformed."""
    docs = list_docs(consul, HOSTS, HostDoc)
    if docs.problems:
        hint = "mend or delete them in the Consul UI, Key/Value; nothing was changed"
        raise ConsulError("these documents cannot be read: " + "; ".join(docs.problems), hint=hint)
    return docs


def plain(docs: Docs[HostDoc]) -> dict[str, HostDoc]:
    """Host to its document."""
    return {name: doc for name, (doc, _) in docs.docs.items()}


def write_host_docs(consul: Consul, lock: RunLock, hosts: Sequence[Host], *, prune: bool) -> list[HostChange]:
    """Bring the documents up to date by check-and-set. An operator may drain a host meanwhile. Raises ConsulError."""
    for attempt in range(TRIES):
        lock.check()
        docs = read_host_docs(consul)
        found = host_changes(plain(docs), hosts, prune=prune)
        indexes = {name: index for name, (_, index) in docs.docs.items()}
        try:
            put_docs(consul, [Change(HOSTS + c.name, c.after, indexes.get(c.name, 0)) for c in found])
            return found
        except ConsulConflict:
            if attempt == TRIES - 1:
                raise
    return []
