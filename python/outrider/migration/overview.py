"""The published fleet and its health, read only: what the module `fleet_info` returns."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from msgspec import Struct

from outrider.errors import UnknownAgent
from outrider.migration.changes import Documents
from outrider.migration.publication import Target
from outrider.migration.store import ConsulStore, Seen
from outrider.registry.client import connect


class PublishedAgent(Struct, frozen=True):
    """One agent as published. `passing`: of `instances`, those that pass."""

    name: str
    fleet: str
    version: str
    release: str
    mode: str
    passing: int
    instances: list[PublishedInstance]


class PublishedInstance(Struct, frozen=True):
    """One placed instance and what Consul says of it. `status` is `missing` if it is not registered."""

    instance: str
    host: str
    state: str
    version: str
    status: str
    output: str


class Overview(Struct, frozen=True):
    """A published fleet."""

    fleets: list[str]
    agents: list[PublishedAgent]
    healthy: bool


def overview(target: Target, names: Sequence[str] | None = None) -> Overview:
    """The published agents, or those of `names`, and their health. Raises UnknownAgent, ConsulError."""
    store = ConsulStore(connect(target.address()))
    docs = store.read()
    if names is not None:
        if unknown := [name for name in names if name not in docs]:
            near = difflib.get_close_matches(unknown[0], docs, 1)
            hint = f"did you mean {near[0]}?" if near else f"{len(docs)} agents are published"
            raise UnknownAgent(f"no agent {', '.join(unknown)} is published", hint=hint)
        docs = {name: docs[name] for name in names}
    sight = store.observe({placed.host for item in docs.values() for placed in item.instances})
    agents = [_published(name, item, sight) for name, item in docs.items()]
    wanted = [instance for agent in agents for instance in agent.instances if instance.state == "run"]
    fleets = sorted({agent.fleet for agent in agents if agent.fleet})
    return Overview(fleets, agents, all(instance.status == "passing" for instance in wanted))


def _published(name: str, docs: Documents, sight: dict[tuple[str, str], Seen]) -> PublishedAgent:
    instances = []
    for placed in docs.instances:
        seen = sight.get((placed.instance, placed.host), Seen(placed.host, "", "missing", "not registered in Consul"))
        version = seen.version or placed.version
        instances.append(
            PublishedInstance(placed.instance, placed.host, placed.state, version, seen.status, seen.output)
        )
    passing = sum(instance.status == "passing" for instance in instances)
    doc = docs.agent
    if doc is None:
        return PublishedAgent(name, "", "", "", "", passing, instances)
    return PublishedAgent(name, doc.fleet, doc.version, doc.release, doc.agent.mode, passing, instances)
