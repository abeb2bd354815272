"""Which instance gets the next call: power of two choices among those that may be called. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outrider.calls.target import Peer, Place


def choose(
    peers: Sequence[Peer],
    now: float,
    until: float,
    repeatable: bool,
    tried: frozenset[Place],
    max_ejected: float,
    rng: random.Random,
    weighted: bool = False,
) -> tuple[Peer, int] | None:
    """The instance and its circuit's permit; None if every circuit refuses.

    An instance that this call has not tried is better than one it has, one of this host better than another; of two
    random ones (Mitzenmacher) the cheaper is taken. `weighted`: weights differ, and say alone who gets how many calls,
    as when a new instance is given few of them to be judged by.
    """
    if len(peers) == 1:
        peer = peers[0]
        permit = peer.breaker.acquire(now, until, repeatable)
        return (peer, permit) if permit else None
    trial = _trial(peers, now, until, repeatable, tried)
    if trial:
        return trial
    open_to_us = [peer for peer in peers if peer.breaker.is_closed and not peer.instance.ill]
    usable = open_to_us + _readmitted(peers, open_to_us, max_ejected)
    for group in _preferred(usable, now, tried, weighted):
        if group:
            peer = _by_weight(group, rng) if weighted else _cheaper(group, now, rng)
            return peer, peer.breaker.acquire(now, until, repeatable) or -1
    return None


def _trial(
    peers: Sequence[Peer], now: float, until: float, repeatable: bool, tried: frozenset[Place]
) -> tuple[Peer, int] | None:
    """A half-open circuit takes the next call there is: whether its instance is well again is worth knowing soon."""
    for peer in peers:
        if not peer.breaker.is_closed and peer.place not in tried:
            permit = peer.breaker.acquire(now, until, repeatable)
            if permit:
                return peer, permit
    return None


def _readmitted(peers: Sequence[Peer], open_to_us: Sequence[Peer], max_ejected: float) -> list[Peer]:
    """Those that must be called although their circuits are open, so that only a share is ever kept away."""
    ejectable = max(1, int(max_ejected * len(peers)))
    missing = len(peers) - ejectable - len(open_to_us)
    if missing <= 0:
        return []
    ejected = [peer for peer in peers if peer not in open_to_us]
    return sorted(ejected, key=lambda peer: peer.breaker.opened)[:missing]


def _preferred(peers: list[Peer], now: float, tried: frozenset[Place], weighted: bool) -> list[list[Peer]]:
    """Groups, best first: fresh before tried, staying before draining, of this host before others."""
    fresh = [p for p in peers if p.place not in tried] if tried else peers
    staying = [p for p in fresh if p.draining_until <= now]
    return [[p for p in staying if p.local and not weighted], staying, fresh, peers]


def _by_weight(peers: list[Peer], rng: random.Random) -> Peer:
    weights = [peer.instance.weight for peer in peers]
    return rng.choices(peers, weights)[0] if any(weights) else peers[0]


def _cheaper(peers: list[Peer], now: float, rng: random.Random) -> Peer:
    if len(peers) == 1:
        return peers[0]
    # random.sample costs five times as much.
    first = int(rng.random() * len(peers))
    second = (first + 1 + int(rng.random() * (len(peers) - 1))) % len(peers)
    one, other = peers[first], peers[second]
    return one if one.cost(now) <= other.cost(now) else other
