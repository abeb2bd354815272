"""How fast a watch may ask: full-jitter back-off after failures, a bucket of tokens while it wakes."""

from __future__ import annotations

import random

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0


def backoff_s(failures: int, rng: random.Random) -> float:
    """Full jitter, so that the hosts of a fleet do not all come back in the same instant."""
    return rng.uniform(0, min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(failures, 10)))


class Bucket:
    """Tokens for `burst` questions at once and `rate_per_s` on average. Times are monotonic seconds."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = 0.0

    def take(self, now: float) -> float:
        """Take one token and return the seconds to wait first."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate_per_s)
        self._at = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate_per_s)
