"""A world in which leases are taken and lost: simulated Consul and hosts, the real rules, one clock, a seed.

Every host runs the decisions of outrider.failover.rules; what is simulated is what surrounds them: a Consul that ends
sessions, delays locks, may be cut off from a host or lose its data; questions between hosts; shims that stand still.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from outrider.failover import rules
from outrider.failover.rules import Candidate, may_promise, take_at, taken
from outrider.host.deadman import left_ns
from outrider.registry.leases import LOCK_DELAY_S, Lease, LeaseDoc, Member

STEP_S = 0.05
EPS_S = 0.001
DETECT_S = 0.2  # after a host is cut off, Consul ends its session at the soonest
STALE_S = 0.5  # for so long a leader that is cut off answers what does not ask it to make sure
TTL_S = 3.0  # after a shim's last sign Consul ends its session; less than in life, so that it happens
CONSISTENT = True  # how leases are confirmed
AGENT = "Counter"


class Consul(Struct):
    """One key with a session lock."""

    lease: Lease | None = None
    index: int = 0
    delayed_until: float = 0.0
    sessions: set[str] = field(default_factory=set)

    def write(self, doc: LeaseDoc, session: str) -> None:
        self.index += 1
        self.lease = Lease(doc, self.index, session)

    def acquire(self, doc: LeaseDoc, index: int, session: str, now: float) -> bool:
        here = self.lease.index if self.lease else 0
        if session not in self.sessions or here != index or now < self.delayed_until:
            return False
        if self.lease and self.lease.session:
            return False
        self.write(doc, session)
        return True

    def end(self, session: str, now: float) -> None:
        self.sessions.discard(session)
        if self.lease and self.lease.session == session:
            self.write(self.lease.doc, "")
            self.delayed_until = now + LOCK_DELAY_S

    def lose_data(self) -> None:
        self.lease, self.delayed_until = None, 0.0
        self.sessions.clear()


class Host(Struct):
    """A host with one instance. `until`: end of its lease, as its process knows it."""

    name: str
    candidate: Candidate
    session: str = ""
    epoch: int = 0
    until: float = -math.inf
    connected: bool = True
    cut_at: float = math.inf
    confirmed_at: float = 0.0
    paused_until: float = -math.inf
    members: tuple[Member, ...] = ()
    stop_at: float = -math.inf
    state: int = 0  # the writes that its state has
    answered_until: float = -math.inf
    renewed_at: float = 0.0
    release_at: float = math.inf

    def works(self, now: float) -> bool:
        """Whether its process is at work; one that has just lost its lease may need some time to stop.

        It reads the lease, or its dead-man does: neither asks the shim, which may stand still.
        """
        if self.epoch:
            deadline_s = self.until + rules.STOP_S - EPS_S
            return left_ns(self.epoch, self.epoch, int(deadline_s * 1e9), int(now * 1e9)) > 0
        return now < self.stop_at

    def lose(self, now: float) -> None:
        """Its lease is over."""
        self.stop_at = min(self.until, now) + rules.STOP_S - EPS_S
        self.epoch, self.until = 0, -math.inf


class World:
    """Runs hosts against Consul, and remembers who worked when.

    state: the agent has a state, which goes with a lease that is handed over; every step of work is a write
    """

    def __init__(self, seed: int, hosts: int = 3, members: int = 2, *, state: bool = False) -> None:
        self.rng = random.Random(seed)
        self.now = 100.0
        self.consul = Consul()
        names = [f"host{n}" for n in range(1, hosts + 1)]
        placed = tuple(Member(f"{AGENT}-{n}", f"host{n}") for n in range(1, members + 1))
        self.hosts = {
            name: Host(name, Candidate(AGENT, f"{AGENT}-{n}", name, placed, ready=n <= members))
            for n, name in enumerate(names, 1)
        }
        self.placed = placed
        self.cut_pairs: set[frozenset[str]] = set()
        self.worked: list[tuple[float, str, int]] = []
        self.overlaps: list[tuple[float, list[tuple[str, int]]]] = []
        self.epochs: list[int] = []
        self.with_state = state
        self.writes = 0
        self.stale: list[tuple[float, str]] = []  # who worked on a state that lacked a write
        self.handed_over = 0
        # What the placement says; a host that is cut off learns of it later.
        self.reserve = {name: state and name != "host1" for name in names}
        for host in self.hosts.values():
            host.candidate.reserve = self.reserve[host.name]

    def run(self, seconds: float, trouble: float = 0.02) -> None:
        """Let time pass; with each step something may go wrong or be mended."""
        end = self.now + seconds
        while self.now < end:
            if self.rng.random() < trouble:
                self.something_happens()
            self.step()

    def step(self) -> None:
        """Consul first, then the hosts in any order, then look who works."""
        self._consul_notices()
        hosts = list(self.hosts.values())
        self.rng.shuffle(hosts)
        for host in hosts:
            if self.now >= host.paused_until:
                self._act(host)
        working = [(host.name, host.candidate.seen_epoch) for host in hosts if host.works(self.now)]
        self.worked += [(self.now, name, epoch) for name, epoch in working]
        self._write([host for host in hosts if host.epoch and host.works(self.now)])
        if len(working) > 1:
            self.overlaps.append((self.now, working))
        self.now += STEP_S

    def something_happens(self) -> None:
        """One fault or its end."""
        host = self.rng.choice(list(self.hosts.values()))
        happenings = [
            *("cut", "cut", "join", "join", "join", "die", "live", "hang", "pause", "cut leader", "cut leader"),
            *("peers cut", "peers join", "wipe", "restore", "expire"),
        ]
        # An agent with state moves by handing over, and not because its host is lost.
        happenings += ["hand over", "hand over", "finalise"] if self.with_state else ["move"]
        match self.rng.choice(happenings):
            case "cut":
                host.connected, host.cut_at = False, self.now
            case "cut leader":  # with the host, which it still answers while the others end its session
                host.connected, host.cut_at, host.answered_until = False, self.now, self.now + STALE_S
                if host.session:
                    self.consul.end(host.session, self.now)
            case "join":
                host.connected, host.cut_at = True, math.inf
            case "die":
                self.give_up(host)
            case "hang" if host.epoch:
                self.take_away(host)
            case "live":
                host.candidate.ready = any(member.host == host.name for member in self.placed)
            case "peers cut":
                self.cut_pairs.add(frozenset(self.rng.sample(sorted(self.hosts), 2)))
            case "peers join":
                self.cut_pairs.clear()
            case "wipe" if self.rng.random() < 0.2:
                self.consul.lose_data()
            case "restore" if self.consul.lease and self.rng.random() < 0.3:
                # An old copy: an earlier epoch, locked by nobody that lives.
                old = replace(self.consul.lease.doc, epoch=max(1, self.consul.lease.doc.epoch - 10))
                self.consul.lose_data()
                self.consul.write(old, "")
            case "expire" if host.session:
                self.consul.end(host.session, self.now)
            case "pause":
                host.paused_until = self.now + self.rng.uniform(0.1, 12.0)
            case "move":
                self.move()
            case "hand over":
                self.hand_over()
            case "finalise":
                self.finalise()

    def give_up(self, host: Host) -> None:
        """Its process is dead; its shim releases the lease if it can reach Consul."""
        host.candidate.ready = False
        host.epoch, host.until, host.stop_at = 0, -math.inf, -math.inf
        host.candidate.own_until = -math.inf
        self._release(host)

    def take_away(self, host: Host) -> None:
        """Its process does not answer, but may be at work until it has stopped."""
        host.lose(self.now)
        host.candidate.ready, host.candidate.own_until = False, -math.inf
        host.release_at = self.now + rules.release_after_s(ended=False)

    def _release(self, host: Host) -> None:
        host.release_at = math.inf
        lease = self.consul.lease
        if host.connected and lease and host.session and lease.session == host.session:
            self.consul.write(replace(lease.doc, state="released"), "")

    def hand_over(self) -> None:
        """The holder gives its state and its lease to another, which may be dead by the time."""
        source = self._holder()
        others = [h for h in self.hosts.values() if h.connected and h is not source and self._is_member(h)]
        if source is None or not others:
            return
        heir, lease = self.rng.choice(others), self.consul.lease
        assert lease
        self.reserve = dict.fromkeys(self.hosts, True)
        for host in (source, heir):
            host.candidate.reserve = True
        heir.state = source.state
        source.epoch, source.until, source.stop_at = 0, -math.inf, -math.inf
        source.candidate.own_until = -math.inf
        self.consul.write(replace(lease.doc, state="released", heir=Member(heir.candidate.instance, heir.name)), "")
        self.handed_over += 1

    def finalise(self) -> None:
        """The holder is where it is to stay: it alone may take the lease again, whatever becomes of it."""
        if (holder := self._holder()) is not None:
            self.reserve = {name: name != holder.name for name in self.hosts}
            holder.candidate.reserve = False

    def _holder(self) -> Host | None:
        lease = self.consul.lease
        return next(
            (h for h in self.hosts.values() if h.epoch and h.connected and lease and lease.session == h.session), None
        )

    def _is_member(self, host: Host) -> bool:
        return Member(host.candidate.instance, host.name) in self.placed

    def _write(self, working: list[Host]) -> None:
        for host in working:
            if host.state < self.writes:
                self.stale.append((self.now, host.name))
            self.writes += 1
            host.state = self.writes

    def move(self) -> None:
        """Placement puts another host in the place of one whose instance is dead or cut off."""
        gone = [m for m in self.placed if not self.hosts[m.host].connected]
        free = [name for name in self.hosts if name not in {m.host for m in self.placed}]
        if gone and free:
            old, host = self.rng.choice(gone), self.hosts[self.rng.choice(free)]
            self.placed = tuple(Member(old.instance, host.name) if m == old else m for m in self.placed)
            host.candidate.instance, host.candidate.ready = old.instance, True
            for each in self.hosts.values():
                if each.connected:
                    each.candidate.members = self.placed

    def _consul_notices(self) -> None:
        for host in self.hosts.values():
            lost = not host.connected and self.now - host.cut_at > DETECT_S
            lost = lost or (self.now - host.renewed_at > TTL_S)
            if lost and host.session in self.consul.sessions and self.rng.random() < 0.2:
                self.consul.end(host.session, self.now)

    def _act(self, host: Host) -> None:
        candidate = host.candidate
        if self.now >= host.release_at:
            self._release(host)
        if host.connected:
            host.renewed_at = self.now
            if host.session not in self.consul.sessions:
                host.session = f"{host.name}-{self.rng.random()}"
                self.consul.sessions.add(host.session)
            self._follow(host)
        if host.epoch:
            self._confirm(host)
        if host.epoch and self.now >= host.until:
            host.lose(self.now)
        if not host.epoch and host.connected:
            lease = self.consul.lease
            if take_at(candidate, lease) <= self.now:
                doc = taken(candidate, lease, self.now)
                if self.consul.acquire(doc, lease.index if lease else 0, host.session, self.now):
                    host.epoch, host.members = doc.epoch, doc.members
                    host.until = candidate.own_until = self.now + rules.LEASE_S
                    host.confirmed_at = self.now
                    candidate.known = doc
                    self.epochs.append(doc.epoch)

    def _follow(self, host: Host) -> None:
        """What its watch tells it."""
        candidate, lease = host.candidate, self.consul.lease
        free = lease is None or not lease.session
        candidate.reserve = self.reserve[host.name]
        if lease and lease.doc.epoch >= candidate.seen_epoch:
            candidate.known = lease.doc
        if not free:
            candidate.free_since = None
        elif candidate.free_since is None:
            candidate.free_since = self.now

    def _confirm(self, host: Host) -> None:
        """A consistent read; without Consul, the leave of all other members."""
        if host.connected:
            lease = self.consul.lease
            if lease and lease.session == host.session and lease.doc.holder == host.candidate.instance:
                host.until = host.candidate.own_until = self.now + rules.LEASE_S
                host.confirmed_at = self.now
            else:
                host.lose(self.now)  # Consul says so: its process is told at once
            return
        if not CONSISTENT and self.now < host.answered_until:
            host.until = host.candidate.own_until = self.now + rules.LEASE_S
            return
        others = [self.hosts[member.host] for member in host.members if member.host != host.name]
        if not others or self.now - host.confirmed_at > rules.FAILSAFE_S:
            return
        if all(self._promises(other, host) for other in others):
            host.until = host.candidate.own_until = self.now + rules.LEASE_S

    def _promises(self, other: Host, holder: Host) -> bool:
        if frozenset((other.name, holder.name)) in self.cut_pairs or self.now < other.paused_until:
            return False
        lease = self.consul.lease if other.connected else None
        given = may_promise(
            replace(other.candidate), lease, holder.candidate.instance, holder.epoch, self.now, taking=other.epoch > 0
        )
        if given:
            other.candidate.promised_until = self.now + rules.PROMISE_S
        return given


def worlds(count: int, seconds: float = 60.0, **options: Any) -> Iterator[World]:
    """That many worlds, each with another seed."""
    for seed in range(count):
        world = World(seed, **options)
        world.run(seconds)
        yield world
