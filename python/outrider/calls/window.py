"""Failures and slow calls over the last seconds, in a ring of ten counters. Pure."""

from __future__ import annotations

BUCKETS = 10


class Window:
    """Counts calls of the last `seconds`; older ones drop out a tenth at a time."""

    def __init__(self, seconds: float) -> None:
        self._width = seconds / BUCKETS
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.calls = self.failed = self.slow = 0
        self._at = 0
        self._ring = [[0, 0, 0] for _ in range(BUCKETS)]

    def add(self, now: float, failed: bool, slow: bool) -> None:
        """Count a call that ended at `now`, in seconds of a clock that never goes back."""
        at = int(now / self._width)
        if at != self._at:
            self._advance(at)
        bucket = self._ring[at % BUCKETS]
        bucket[0] += 1
        self.calls += 1
        if failed:
            bucket[1] += 1
            self.failed += 1
        if slow:
            bucket[2] += 1
            self.slow += 1

    def _advance(self, at: int) -> None:
        for passed in range(max(self._at + 1, at - BUCKETS + 1), at + 1):
            bucket = self._ring[passed % BUCKETS]
            self.calls -= bucket[0]
            self.failed -= bucket[1]
            self.slow -= bucket[2]
            bucket[:] = 0, 0, 0
        self._at = at
