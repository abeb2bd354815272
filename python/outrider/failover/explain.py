"""Where agents are, why, and where they could go: the placer's own decisions, asked in advance. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from outrider.errors import UnknownAgent
from outrider.failover.decision import Decision
from outrider.failover.floor import Floor
from outrider.failover.placer import Picture, closed_hosts, pairs, wishes
from outrider.fleet.rooms import Room
from outrider.registry.layout import HostDoc, Placed

LONG_AGO_S = 1e6


class PlacedRow(Struct, frozen=True):
    """One instance in one place. `reason`, `since` (Unix seconds, 0 if not known): of its agent's placement."""

    agent: str
    instance: str
    host: str
    state: str
    home: str
    reason: str
    since: float


class Placements(Struct, frozen=True):
    """`GET /v1/placement`. `placer`: the host whose shim decides, empty if none is known."""

    placer: str
    instances: tuple[PlacedRow, ...] = ()


class HostRow(Struct, frozen=True):
    """What a host has left, None being without limit, and why it cannot take one more instance; empty if it can."""

    host: str
    instances: int
    cpu: float | None
    memory_mib: int | None
    gpus_mib: tuple[int, ...]
    lacks: str


class IfLost(Struct, frozen=True):
    """What would become of an instance if its host were lost now: `target`, or None and why it could not move."""

    instance: str
    host: str
    target: str | None
    reason: str


class Explanation(Struct, frozen=True):
    """`GET /v1/placement/AGENT`."""

    agent: str
    mode: str
    instances: tuple[PlacedRow, ...]
    hosts: tuple[HostRow, ...]
    if_lost: tuple[IfLost, ...]
    failback_s: float | None = None
    failback_window: str | None = None


class Left(Struct, frozen=True):
    """An instance that is still on a host. `target`: where it is going; `stuck`: why it cannot go anywhere."""

    agent: str
    instance: str
    target: str
    stuck: str


class HostReport(Struct, frozen=True):
    """`GET /v1/hosts/HOST`. `leaving`: instances that are not placed there any more and still registered."""

    host: str
    state: str
    reason: str
    since: float
    placer: str
    left: tuple[Left, ...] = ()
    leaving: tuple[str, ...] = ()


def drained_hosts(hosts: Mapping[str, HostDoc]) -> dict[str, str]:
    """Drained host to the reason that was given."""
    return {name: doc.reason for name, doc in sorted(hosts.items()) if doc.closed}


def placed_rows(picture: Picture) -> tuple[PlacedRow, ...]:
    """All instances, by agent."""
    return tuple(row for name in sorted(picture.placements) for row in _rows(picture, name))


def _rows(picture: Picture, name: str) -> Iterator[PlacedRow]:
    doc = picture.placements[name]
    for placed in doc.instances:
        yield PlacedRow(name, placed.instance, placed.host, placed.state, placed.home, doc.reason, doc.since)


def explain(picture: Picture, name: str) -> Explanation:
    """All about the place of one agent. Raises UnknownAgent."""
    if name not in picture.agents or name not in picture.placements:
        raise UnknownAgent(f"no agent {name} is placed", hint="`outrider place` lists those that are")
    agent = picture.agents[name].agent
    floor = Floor(picture.agents, picture.placements, picture.hosts, closed_hosts(picture), picture.lost)
    want = next(want for want in floor.wants if want.name == name)
    hosts = []
    for host in sorted(picture.hosts):
        entries = [entry for entry, rooms in want.rooms.items() if any(room.host.name == host for room in rooms)]
        room = floor.rooms[host]
        lacks = [room.refuses(want, entry) for entry in entries]
        hosts.append(_host_row(room, "" if "" in lacks else lacks[0] if lacks else f"is not among the hosts of {name}"))
    running = [placed for placed in picture.placements[name].instances if placed.state == "run"]
    fates = tuple(_fate(picture, name, placed) for placed in running)
    rows = tuple(_rows(picture, name))
    return Explanation(name, agent.mode, rows, tuple(hosts), fates, agent.failback_s, agent.failback_window)


def _host_row(room: Room, lacks: str) -> HostRow:
    return HostRow(room.host.name, room.instances, room.cpu, room.memory_mib, tuple(room.gpus_mib), lacks)


def _fate(picture: Picture, name: str, placed: Placed) -> IfLost:
    lost = replace(picture, lost={**picture.lost, placed.host: picture.now - LONG_AGO_S})
    for decision in wishes(lost):
        if (decision.agent, decision.instance, decision.source) == (name, placed.instance, placed.host):
            return IfLost(placed.instance, placed.host, decision.target, decision.reason)
    if placed.host not in picture.hosts:
        return IfLost(placed.instance, placed.host, None, f"{placed.host} is not described in Consul: run site.yml")
    return IfLost(placed.instance, placed.host, None, "nothing would be done")


def host_report(picture: Picture, name: str, registered: frozenset[str], placer: str) -> HostReport:
    """What is still on a host. `registered`: instances that Consul lists there. The host must be known."""
    doc = picture.hosts[name]
    stuck = {(d.agent, d.instance): d for d in wishes(picture) if d.source == name and d.target is None}
    left, placed_here = [], set()
    for agent in sorted(picture.placements):
        moving = {old.instance: new.host for old, new in pairs(picture.placements[agent].instances)}
        for placed in picture.placements[agent].instances:
            if placed.host == name:
                placed_here.add(placed.instance)
                if placed.state == "run":
                    why = _why(stuck.get((agent, placed.instance)))
                    left.append(Left(agent, placed.instance, moving.get(placed.instance, ""), why))
    gone = tuple(sorted(registered - placed_here))
    return HostReport(name, doc.state, doc.reason, doc.since, placer, tuple(left), gone)


def _why(decision: Decision | None) -> str:
    return decision.reason if decision else ""
