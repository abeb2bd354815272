"""Whether the shim itself had the CPU: where a tick comes late, answers may have waited for us, not we for them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

TICK_S = 0.05
LATE_S = 0.1


class LoopLag:
    """Ticks on the event loop from `start` to `stop`, twenty times a second (0.2 % of a core)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = math.inf
        self._late_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self.worst_s = 0.0

    def start(self) -> None:
        """Begin to tick."""
        self.tick()

    def stop(self) -> None:
        """End."""
        if self._timer:
            self._timer.cancel()

    def late_since(self, since: float) -> bool:
        """True if at any time after monotonic `since` the loop was more than 100 ms late, or is now."""
        return self._late_at >= since or self._clock() - self._due > LATE_S

    def tick(self) -> None:
        """One tick: notes how late it is."""
        now = self._clock()
        late_s = now - self._due
        self.worst_s = max(self.worst_s, late_s)
        if late_s > LATE_S:
            self._late_at = now
        self._due = now + TICK_S
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self.tick)
