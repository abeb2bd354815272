"""How many retries an agent's callers may add to its load: a token bucket filled by calls. Pure."""

from __future__ import annotations

MOST = 100.0
FLOOR_PER_S = 1.0  # an agent that is called once a minute may be asked again too


class RetryBudget:
    """`ratio` tokens for each call; a retry takes one. None: no bound."""

    def __init__(self, ratio: float | None, now: float) -> None:
        self._ratio = ratio
        self._tokens = 10.0
        self._at = now

    def called(self) -> None:
        """A call was begun."""
        if self._ratio and self._tokens < MOST:
            self._tokens += self._ratio

    def take(self, now: float) -> bool:
        """Whether there may be a retry."""
        if self._ratio is None:
            return True
        self._tokens = min(MOST, self._tokens + (now - self._at) * FLOOR_PER_S * (self._ratio > 0))
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
