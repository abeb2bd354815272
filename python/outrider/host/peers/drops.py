"""Counts what was dropped and says it once a minute for each reason: a flood of datagrams is none of log lines."""

from __future__ import annotations

import logging
from collections import Counter

log = logging.getLogger("outrider.peers")

EVERY_S = 60.0
MEANS = {
    "size": "longer or shorter than any of ours",
    "version": "of another version of Outrider",
    "key": "not made with this fleet's key",
    "garbage": "not readable, though made with this fleet's key",
    "echo": "from a shim that says it is this host: is the name given twice?",
    "replay": "a copy of an earlier one, or overtaken by a later one",
    "send": "not sent",
}


class Drops:
    """Datagrams dropped, by reason."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter({reason: 0 for reason in MEANS})
        self._said: dict[str, float] = {}

    def add(self, reason: str, who: str, now: float) -> None:
        """One more. `who`: the other side's address; `now`: seconds of a monotonic clock."""
        self.counts[reason] += 1
        if now - self._said.get(reason, -EVERY_S) >= EVERY_S:
            self._said[reason] = now
            log.warning("peers: a datagram %s was dropped (%s); %d so far", who, MEANS[reason], self.counts[reason])
