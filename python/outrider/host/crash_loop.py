"""An instance that fails again and again: how long it waits before it starts anew, and when it is parked. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable

from outrider.fleet.spec import Restart
from outrider.host.supervisor import Exit


def backoff_s(restart: Restart, failures: int) -> float:
    """Seconds to wait before restart number `failures` in a row: none, then doubling up to the limit."""
    if failures <= 1:
        return 0.0
    return float(min(restart.max_backoff_s, restart.backoff_s * 2 ** min(failures - 2, 30)))


def restarts_after(restart: Restart, ended: Exit) -> bool:
    """Whether an instance that ended by itself is started again."""
    return restart.policy == "always" or (restart.policy == "on-failure" and ended.code != 0)


class CrashLoop:
    """Failures in a row of one instance. What could not even be started waits like the rest, but is never parked:

    a taken port or a full disk is the host's trouble, and goes away without anybody's touching the instance.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._crashes = 0
        self._first_at = 0.0
        self.failures = 0

    def clear(self) -> None:
        """It was steady, or somebody ended it on purpose."""
        self._crashes = self.failures = 0

    def failed(self, *, started: bool, steady: bool) -> None:
        """One more failure: of a process that had started, and had been ready for long, or not."""
        if steady:
            self.clear()
        self.failures += 1
        if started:
            self._first_at = self._first_at if self._crashes else self._clock()
            self._crashes += 1

    def reason_to_park(self, agent: str, restart: Restart, ended: Exit) -> str:
        """Why it is not started again, with what revives it; empty if it is."""
        revive = f"`outrider restart {agent}` or a new version revives it"
        if not restarts_after(restart, ended):
            return f"parked: {ended.reason}; its restart policy is {restart.policy}; {revive}"
        if restart.park_after == 0 or self._crashes < restart.park_after:
            return ""
        within_s = self._clock() - self._first_at
        return f"parked: failed {self._crashes} times in a row within {within_s:.0f} s, last: {ended.reason}; {revive}"
