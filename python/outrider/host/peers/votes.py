"""Is a host down: what this shim heard of it, and what the others that watch it say. Pure, the clock is handed in.

A host that was heard and then misses five heartbeats is suspected; it is down, for routing alone, when the majority of
those that watch it suspect it. A shim that ran late itself doubts itself, not the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

BEAT_S = 0.1
MISSED_S = 5 * BEAT_S
# Later than this, and the silence may be our own.
LATE_S = 0.15
DOUBT_S = 1.0
# Those who vote say it again every second, in case that a datagram is lost.
VOTE_S = 3.0


def to_next_beat(wall: float) -> float:
    """Seconds to the next heartbeat; `wall`: Unix seconds.

    Hosts whose clocks agree beat together: what arrives at once costs one wake-up, half the processor time. Clocks that
    do not agree, or are set, cost that and nothing else: it is always between half a beat and one and a half.
    """
    left = BEAT_S - wall % BEAT_S
    return left if left > BEAT_S / 2 else left + BEAT_S


class Votes:
    """This host's own suspicions, and everyone's votes. All times are seconds of one monotonic clock."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._heard: dict[str, float] = {}
        self._votes: dict[str, tuple[frozenset[str], float]] = {}
        self._ticked: float | None = None
        self._doubt_until = 0.0
        self.suspects: frozenset[str] = frozenset()
        self.doubts = 0

    def heard(self, host: str, suspects: Iterable[str], now: float) -> None:
        """A heartbeat came: the host lives, and votes so."""
        self._heard[host] = now
        self._votes[host] = (frozenset(suspects), now)
        self.suspects -= {host}

    def bye(self, host: str) -> None:
        """A host said that it goes silent: as if it was never heard."""
        self._heard.pop(host, None)
        self._votes.pop(host, None)
        self.suspects -= {host}

    def tick(self, watched: Mapping[str, Iterable[str]], now: float) -> None:
        """Find who fell silent, once per heartbeat. `watched`: each host to those that watch it."""
        self._doubt(now)
        # Of others we hear now and then, too; their silence says nothing, also not when they become ours to watch.
        self._heard = {host: at for host, at in self._heard.items() if self._host in watched.get(host, ())}
        silent = {host for host, at in self._heard.items() if now - at >= MISSED_S}
        if now < self._doubt_until:
            silent &= self.suspects
        self.suspects = frozenset(silent)

    def alive(self, now: float) -> frozenset[str]:
        """The hosts that were heard a moment ago."""
        return frozenset(host for host, at in self._heard.items() if now - at < MISSED_S)

    def down(self, watched: Mapping[str, Iterable[str]], now: float) -> frozenset[str]:
        """The hosts that the majority of their watchers suspect."""
        ballots = {host: names for host, (names, at) in self._votes.items() if now - at < VOTE_S}
        ballots[self._host] = self.suspects
        found = set()
        for host in frozenset().union(*ballots.values()):
            watchers = tuple(watched.get(host, ()))
            against = sum(host in ballots.get(watcher, ()) for watcher in watchers)
            if against > len(watchers) // 2:
                found.add(host)
        return frozenset(found)

    def _doubt(self, now: float) -> None:
        """Forgive the others the time that this shim itself did not run."""
        late = now - self._ticked - BEAT_S if self._ticked is not None else 0.0
        self._ticked = now
        if late > LATE_S:
            self.doubts += 1
            self._doubt_until = now + DOUBT_S
            self._heard = {host: min(at + late, now) for host, at in self._heard.items()}
