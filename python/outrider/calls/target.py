"""What one process knows of an agent that it calls: its instances, how they fare, and what retries may cost.

All state of a target is read and changed under its one lock, for moments only: never while a call is under way.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pybreaker

from outrider.calls.breaker import Breaker, Outcome
from outrider.calls.budget import RetryBudget
from outrider.calls.choice import choose
from outrider.calls.frames import Welcome
from outrider.calls.links import Links
from outrider.calls.settings import Settings
from outrider.calls.tally import MOST_METHODS, OTHER, Tally
from outrider.discovery.records import Answer, Instance

log = logging.getLogger("outrider.calls")

Place = tuple[str, str]


def place_of(instance: Instance) -> Place:
    """Its name and host: while an instance moves it is in two places under one name."""
    return instance.instance, instance.host


class Peer:
    """One instance as this caller sees it."""

    __slots__ = (
        "breaker",
        "draining_until",
        "in_flight",
        "instance",
        "latency_at",
        "latency_s",
        "links",
        "local",
        "target",
    )

    def __init__(self, target: Target, instance: Instance, breaker: Breaker, local: bool) -> None:
        self.target = target
        self.instance = instance
        self.breaker = breaker
        self.local = local
        self.in_flight = 0
        self.latency_s = 0.0
        self.latency_at = 0.0
        self.draining_until = 0.0
        self.links = Links()

    @property
    def place(self) -> Place:
        """What it is known by."""
        return place_of(self.instance)

    def relink(self) -> None:
        """Close its connections, those in use when they come back; the next call opens another."""
        self.links.retire()
        self.links = Links()

    def cost(self, now: float) -> float:
        """What a call is expected to wait for here: peak EWMA of latency by calls in flight, by weight (Finagle)."""
        settings = self.target.settings
        latency_s = self.latency_s * math.exp((self.latency_at - now) / settings.latency_s) + 1e-5
        weight = self.instance.weight
        if self.instance.since:
            age_s = time.time() - self.instance.since
            if 0 <= age_s < settings.slow_start_s:
                weight *= max(0.1, age_s / settings.slow_start_s)
        return latency_s * (self.in_flight + 1) / max(weight, 1e-6)

    def took(self, now: float, seconds: float) -> None:
        """A call was answered: latency rises at once and falls slowly."""
        if seconds >= self.latency_s:
            self.latency_s = seconds
        else:
            keep = math.exp((self.latency_at - now) / self.target.settings.latency_s)
            self.latency_s = seconds + (self.latency_s - seconds) * keep
        self.latency_at = now


class Target:
    """One agent. `opened` is called when a circuit to one of its instances opens."""

    def __init__(
        self,
        agent: str,
        settings: Settings,
        *,
        is_local: Callable[[Instance], bool],
        rng: random.Random,
        opened: Callable[[Peer], None],
        now: float,
    ) -> None:
        self.agent = agent
        self.settings = settings
        self.lock = threading.Lock()
        self.budget = RetryBudget(settings.retry_budget, now)
        self.tallies: dict[str, Tally] = {}
        self.epoch = 0  # the highest seen: whoever answers with a lower one was the holder
        self.peers: list[Peer] = []
        self._welcome: Welcome | None = None
        self.served_at = now - settings.absent_s
        self._is_local = is_local
        self._rng = rng
        self._opened = opened
        self._instances: tuple[Instance, ...] = ()
        self._weighted = False

    def follow(self, answer: Answer, now: float) -> None:
        """Take over the catalogue's instances; those that stay keep what is known of them."""
        if answer.instances:
            self.served_at = now
        if answer.instances is self._instances:
            return
        with self.lock:
            self._instances = answer.instances
            self._weighted = len({instance.weight for instance in answer.instances}) > 1
            old = {peer.place: peer for peer in self.peers}
            self.peers = [self._peer(old.pop(place_of(i), None), i) for i in answer.instances]
            self.epoch = max([self.epoch, *(i.epoch for i in answer.instances)])
        for peer in old.values():
            peer.links.retire()

    def choose(self, now: float, until: float, repeatable: bool, tried: frozenset[Place]) -> tuple[Peer, int] | None:
        """An instance and its circuit's permit; None if nothing may be called now. The call counts as in flight."""
        with self.lock:
            limit = self.settings.max_ejected
            chosen = choose(self.peers, now, until, repeatable, tried, limit, self._rng, self._weighted)
            if chosen:
                chosen[0].in_flight += 1
        return chosen

    def record(self, peer: Peer, permit: int, now: float, took_s: float, outcome: Outcome, detail: str = "") -> None:
        """What became of one attempt, which `choose` counted as in flight."""
        with self.lock:
            peer.in_flight -= 1
            if outcome in ("ok", "slow"):
                peer.took(now, took_s)
            peer.breaker.record(permit, now, outcome, detail)

    def may_repeat(self, method: str) -> bool:
        """Whether the agent said that this method is idempotent."""
        return self._welcome is not None and method in self._welcome.idempotent

    def welcome(self, welcome: Welcome) -> None:
        """What an instance said of itself, and so of its agent."""
        self._welcome = welcome

    def tally(self, method: str) -> Tally:
        """The counts of one method; of all others together once there are many, as where names are made of data."""
        name = method if method in self.tallies or len(self.tallies) < MOST_METHODS else OTHER
        return self.tallies.get(name) or self.tallies.setdefault(name, Tally())

    def _peer(self, old: Peer | None, instance: Instance) -> Peer:
        if old is not None:
            was, old.instance = old.instance, instance
            if (was.address, was.ports, was.since) != (instance.address, instance.ports, instance.since):
                # Another process, or one that its shim found well again: what was known of it is no longer true.
                old.relink()
                if not old.breaker.is_closed:
                    old.breaker.close()
            return old
        breaker = Breaker(instance.instance, self.settings, self._rng, (_Transitions(self.agent),))
        peer = Peer(self, instance, breaker, local=self._is_local(instance))
        breaker.on_open = lambda: self._opened(peer)
        return peer


class _Transitions(pybreaker.CircuitBreakerListener):
    """Transitions are logged, calls are not."""

    def __init__(self, agent: str) -> None:
        self._agent = agent

    def success(self, cb: pybreaker.CircuitBreaker) -> None:
        pass

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        why = f": {cb.reason}" if cb.reason and new_state.name == pybreaker.STATE_OPEN else ""
        log.warning("the circuit to %s (%s) is %s%s", cb.name, self._agent, new_state.name, why)
