"""The published fleet and its health, read only: what the module `fleet_info` returns."""

from __future__ import annotations

from msgspec import Struct

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


def overview(target: Target) -> Overview:
    """The published fleet and its health. Raises ConsulError."""
    store = ConsulStore(connect(target.address()))
    docs = store.read()
    sight = store.observe({placed.host for item in docs.values() for placed in item.instances})
    agents = [_published(name, item, sight) for name, item in docs.items()]
    fleets = sorted({agent.fleet for agent in agents if agent.fleet})
    wanted = [i for agent in agents for i in agent.instances if i.state == "run"]
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
