"""Where instances go when their host is lost or drained. Pure and repeatable: the same picture, the same decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from msgspec import Struct

from outrider.failover.decision import Decision, Decisions
from outrider.failover.floor import Floor
from outrider.fleet.effective import is_fenced
from outrider.fleet.ports import CALL
from outrider.fleet.rooms import Want
from outrider.fleet.spec import Agent
from outrider.registry.layout import AgentDoc, HostDoc, Placed, PlacementDoc
from outrider.registry.leases import LeaseDoc

# Gossip says it within two seconds, wrongly if a host was starved for a moment: it gets that long to come back.
LOST_S = 1.0
# A lost singleton's standby takes over by itself; a new standby may wait until a reboot would be over.
STANDBY_S = 60.0
STEADY_S = 1.0  # passing for so long counts as well
HAND_OVER_S = 5.0  # then a holder is ended that did not pass on its lease: it works on something for too long
STARTS_PER_HOST = 4
STARTS_AT_ONCE = 8

UNFENCED = (
    f"it neither serves calls (`ports: {{{CALL}: auto}}`) nor has a dead-man (`fence: deadman`), so nothing stops it "
    "there when it loses its lease"
)

Spot = tuple[str, str]
"""An instance and a host: while it moves it has two."""


class Picture(Struct, frozen=True):
    """What decisions follow from. Times are seconds of one monotonic clock.

    lost, well: host to since when it is lost, or is not
    trouble: host to why nothing new may be put there now, beside being lost or drained
    passing: instances that pass, since when
    starting: instances that were placed by earlier decisions and do not pass yet
    leases: of singletons, as last read
    wall: Unix seconds now, for what depends on the time of day
    """

    agents: Mapping[str, AgentDoc]
    placements: Mapping[str, PlacementDoc]
    hosts: Mapping[str, HostDoc]
    now: float
    lost: Mapping[str, float] = {}
    well: Mapping[str, float] = {}
    trouble: Mapping[str, str] = {}
    passing: Mapping[Spot, float] = {}
    starting: frozenset[Spot] = frozenset()
    leases: Mapping[str, LeaseDoc] = {}
    wall: float = 0.0


def decide(picture: Picture) -> Decisions:
    """What to do now: finish moves, then place what is lost, what is on drained hosts, and what goes home.

    By priority, then as placement orders agents. Only some start at a time; the others get their place reserved.
    """
    if 2 * len(picture.lost.keys() & picture.hosts.keys()) > len(picture.hosts):
        lost = ", ".join(sorted(picture.lost))
        return Decisions(halted=f"more than half of the hosts seem lost ({lost}), more likely by the observer's fault")
    return Decisions(tuple(_in_turn(wishes(picture), picture)))


def wishes(picture: Picture) -> list[Decision]:
    """All decisions, if any number could start at once."""
    floor = Floor(picture.agents, picture.placements, picture.hosts, closed_hosts(picture), picture.lost)
    # What a migration moves has two places, and is its own until that has ended, one way or the other.
    wants = [want for want in floor.wants if not picture.placements[want.name].migration]
    made: list[Decision] = []
    for pick in (_arrived, _lost, _drained, _returning):
        made += (decision for want in wants for decision in pick(picture, floor, want))
    return made


def is_gone(picture: Picture, host: str) -> bool:
    """Whether a host has been lost for long enough to act on it."""
    return host in picture.lost and picture.now - picture.lost[host] >= LOST_S


def closed_hosts(picture: Picture) -> dict[str, str]:
    """Host to why nothing new may be put there."""
    closed = {name: doc.closed for name, doc in picture.hosts.items() if doc.closed}
    return {**picture.trouble, **closed, **dict.fromkeys(picture.lost, "is lost")}


def _single(picture: Picture, want: Want) -> Iterator[Placed]:
    """Instances that should run and are in one place, on a host that we know."""
    instances = picture.placements[want.name].instances
    names = Counter(placed.instance for placed in instances)
    for placed in sorted(instances, key=_by_number):
        if names[placed.instance] == 1 and placed.state == "run" and placed.host in picture.hosts:
            yield placed


def _by_number(placed: Placed) -> tuple[int, str]:
    return len(placed.instance), placed.instance


def _arrived(picture: Picture, floor: Floor, want: Want) -> Iterator[Decision]:
    """An instance in two places loses the one that is lost, or the old one once the new one is well.

    A singleton's old one passes on its lease first, so that its callers wait for as long as a transaction takes.
    """
    del floor
    placement = picture.placements[want.name]
    for old, new in pairs(placement.instances):
        if is_gone(picture, new.host):
            reason = f"{new.host}, where it was to go, is lost"
            yield Decision(want.name, new.instance, new.host, old.host, reason, "drop", "arrived")
            continue
        since = picture.passing.get((new.instance, new.host), picture.now)
        if is_gone(picture, old.host):
            reason = f"{old.host} is lost"
        elif old.state == "stopped" or picture.now - since >= STEADY_S:
            reason = f"it passes on {new.host}"
            lease = _held_by(picture, want.name, old)
            if lease and (placement.handover is None or placement.handover.epoch != lease.epoch):
                yield Decision(
                    want.name, old.instance, old.host, new.host, reason, "hand over", "arrived", epoch=lease.epoch
                )
                continue
            if lease and picture.now - since < STEADY_S + HAND_OVER_S:
                continue
        else:
            continue
        yield Decision(want.name, old.instance, old.host, new.host, reason, "drop", "arrived")


def _held_by(picture: Picture, agent: str, placed: Placed) -> LeaseDoc | None:
    """The lease that an instance can pass on."""
    lease = picture.leases.get(agent)
    holds = lease and lease.state == "held" and (lease.holder, lease.host) == (placed.instance, placed.host)
    return lease if lease and holds and placed.state == "run" and not lease.sole else None


def pairs(instances: Iterable[Placed]) -> Iterator[tuple[Placed, Placed]]:
    """Instances that are moving: where they leave, and where they go."""
    first: dict[str, Placed] = {}
    for placed in instances:
        if placed.instance in first:
            yield first[placed.instance], placed
        first.setdefault(placed.instance, placed)


def _lost(picture: Picture, floor: Floor, want: Want) -> Iterator[Decision]:
    agent = picture.agents[want.name].agent
    running = (placed for placed in picture.placements[want.name].instances if placed.state == "run")
    others = any(placed.host not in picture.lost for placed in running)
    for placed in _single(picture, want):
        if not is_gone(picture, placed.host):
            continue
        if agent.mode == "singleton" and others and picture.now - picture.lost[placed.host] < STANDBY_S:
            continue
        if agent.mode == "singleton" and not is_fenced(agent):
            reason = f"{placed.host} is lost, and may only be cut off: {UNFENCED}"
            yield Decision(want.name, placed.instance, placed.host, None, reason, "move", "lost")
            continue
        yield _elsewhere(floor, want, placed, f"{placed.host} is lost", "move", "lost")


def _drained(picture: Picture, floor: Floor, want: Want) -> Iterator[Decision]:
    how = _way_of(picture.agents[want.name].agent)
    for placed in _single(picture, want):
        doc = picture.hosts[placed.host]
        if doc.closed and placed.host not in picture.lost:
            yield _elsewhere(floor, want, placed, f"{placed.host} {doc.closed}", how, "drained")


def _way_of(agent: Agent) -> Literal["move", "add"]:
    """What serves goes on until its successor is well, unless nothing would keep both from serving."""
    return "add" if agent.mode == "replicated" or CALL in agent.ports else "move"


def _elsewhere(
    floor: Floor,
    want: Want,
    placed: Placed,
    cause: str,
    how: Literal["move", "add"],
    why: Literal["lost", "drained"],
) -> Decision:
    found = floor.put(want, placed.instance)
    if found is None:
        reason = f"{cause}; {floor.refusal(want, placed.host)}"
        return Decision(want.name, placed.instance, placed.host, None, reason, how, why)
    entry, host = found
    return Decision(want.name, placed.instance, placed.host, host, cause, how, why, entry)


def _returning(picture: Picture, floor: Floor, want: Want) -> Iterator[Decision]:
    agent = picture.agents[want.name].agent
    if agent.failback_s is None or not in_window(agent.failback_window, picture.wall):
        return
    for placed in _single(picture, want):
        well_s = picture.now - picture.well.get(placed.home, picture.now)
        away = placed.home and placed.host not in picture.lost and placed.home not in picture.lost
        if not away or placed.home not in picture.hosts or well_s < max(agent.failback_s, LOST_S):
            continue
        entry = floor.put_on(want, placed.instance, placed.home)
        if entry is not None:
            how = _way_of(agent)
            reason = f"{placed.home}, its home, has been well for {agent.failback_s:g} s"
            yield Decision(want.name, placed.instance, placed.host, placed.home, reason, how, "failback", entry)


def in_window(window: str | None, wall: float) -> bool:
    """Whether it is now, in UTC, from the first time of day to before the second; at any time if there is none."""
    if window is None:
        return True
    start, end = (60 * int(time[:2]) + int(time[3:]) for time in window.split("-"))
    minute = int(wall // 60) % (24 * 60)
    return start <= minute < end if start < end else minute >= start or minute < end


def _in_turn(made: Iterable[Decision], picture: Picture) -> Iterator[Decision]:
    """Those that may be carried out now: starts are bounded for each host and in all."""
    starting = {spot for spot in picture.starting if spot[1] not in picture.lost}
    per_host = Counter(host for _, host in starting)
    total = len(starting)
    for decision in made:
        if decision.starts:
            if total >= STARTS_AT_ONCE or per_host[decision.starts] >= STARTS_PER_HOST:
                continue
            total += 1
            per_host[decision.starts] += 1
        yield decision
