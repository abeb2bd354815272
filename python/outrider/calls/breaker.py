"""The circuit of one caller to one instance: pybreaker's states, storage and listeners, the call outside its lock.

pybreaker runs the call inside a lock, knows no coroutines, counts consecutive failures only and reads the wall clock.
Here a call asks for a permit, runs, and has its outcome recorded, each in a moment.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal

import pybreaker

from outrider.calls.settings import Settings
from outrider.calls.window import Window
from outrider.errors import CallError

Outcome = Literal["ok", "slow", "failed", "lost", "none"]
GROWTH = 2.0
JITTER = 0.25


class Breaker(pybreaker.CircuitBreaker):
    """Closed, open or half-open. Not locked: its target's lock is held by whoever calls it.

    `state`, `fail_counter`, `listeners` and the rest are pybreaker's own; a listener's `before_call` gets no function.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        rng: random.Random,
        listeners: Sequence[pybreaker.CircuitBreakerListener] = (),
    ) -> None:
        super().__init__(
            fail_max=settings.consecutive, success_threshold=settings.successes, listeners=listeners, name=name
        )
        self.settings = settings
        self.is_closed = True
        self.reason = ""
        self.opened = 0.0  # on the caller's monotonic clock
        self.shut_since = 0.0  # opened for the first time since it was closed
        self.open_for_s = 0.0
        self.openings = 0  # in all
        self.on_open: Callable[[], None] = lambda: None
        self._rng = rng
        self._window = Window(settings.window_s)
        self._openings = 0  # since it was last closed
        self._bold_from = 0.0
        self._phase = 1  # counts changes of state: what was begun in an earlier one says nothing about this one
        self._permits: list[float] = []

    def acquire(self, now: float, until: float, repeatable: bool) -> int:
        """A permit if a call may go through now, else 0. Each is followed by `record`, or lapses at `until`.

        Half open, calls that can be repeated elsewhere come first: their failure costs the caller nothing. Others
        are let through only after a back-off that has no such bound.
        """
        if self.is_closed:
            return self._phase
        if self.current_state == pybreaker.STATE_OPEN or not (repeatable or now >= self._bold_from):
            return 0
        self._permits = [lapses for lapses in self._permits if lapses > now]
        if len(self._permits) >= (self.settings.trials if repeatable else 1):
            return 0
        self._permits.append(until)
        return self._phase

    def record(self, permit: int, now: float, outcome: Outcome, detail: str = "") -> None:
        """What became of the call that `permit` let through. `none`: nothing that says how the instance is."""
        if permit != self._phase:
            return
        if not self.is_closed and self._permits:
            self._permits.pop(0)
        if outcome == "none":
            return
        if self._listeners:
            self._tell(outcome)
        if self.is_closed:
            self._count(now, outcome, detail)
        else:
            self._tried(now, outcome, detail)

    def half_open(self) -> None:
        """Let trials through: a probe was answered."""
        self._phase += 1
        self._permits.clear()
        self._state_storage.reset_success_counter()
        super().half_open()

    def close(self) -> None:
        """Everything is let through, and what was counted is forgotten."""
        self._phase += 1
        self._window.clear()
        self._state_storage.reset_counter()
        self._openings = 0
        self.is_closed = True
        self.reason = ""
        super().close()

    def put_off(self, now: float) -> None:
        """A probe was not answered: the next one comes later, but never so late that a recovery would be missed."""
        self._openings += 1
        self.opened = now
        self.open_for_s = self.back_off(self.settings.quick_open_s)

    def back_off(self, most_s: float) -> float:
        """Seconds from the opening to the next trial, never the same twice: callers do not come all at once."""
        grown = self.settings.open_s * GROWTH ** min(self._openings - 1, 30)
        return min(most_s, grown) * self._rng.uniform(1 - JITTER, 1 + JITTER)

    def _count(self, now: float, outcome: Outcome, detail: str) -> None:
        bad, storage = outcome in ("failed", "lost"), self._state_storage
        self._window.add(now, bad, outcome == "slow")
        if bad:
            storage.increment_counter()
        elif storage.counter:
            storage.reset_counter()
        if outcome != "ok" and (why := self._why_open(outcome)):
            self._open(now, f"{why}: {detail}" if detail else why)

    def _why_open(self, outcome: Outcome) -> str:
        """Why it must open now; empty if it need not."""
        window, settings = self._window, self.settings
        if outcome == "lost":
            return "connection lost"
        if self._state_storage.counter >= self.fail_max:
            return f"{self._state_storage.counter} failures in a row"
        if window.calls < settings.minimum_calls:
            return ""
        if window.failed >= settings.failure_rate * window.calls:
            return f"{window.failed} of {window.calls} calls failed in {settings.window_s:g} s"
        if window.slow >= settings.slow_rate * window.calls:
            return f"{window.slow} of {window.calls} calls were slow in {settings.window_s:g} s"
        return ""

    def _open(self, now: float, why: str) -> None:
        self._phase += 1
        if self.is_closed:
            self.shut_since = now
        self.openings += 1
        self._openings += 1
        self.reason = why
        self.opened = now
        self.open_for_s = self.back_off(self.settings.quick_open_s)
        self._bold_from = now + self.back_off(self.settings.max_open_s)
        self.is_closed = False
        self._permits.clear()
        self.open()
        self.on_open()

    def _tried(self, now: float, outcome: Outcome, detail: str) -> None:
        if outcome != "ok":
            why = f"a trial was {outcome}"
            self._open(now, f"{why}: {detail}" if detail else why)
            return
        self._state_storage.increment_success_counter()
        if self.success_counter >= self.success_threshold:
            self.close()

    def _tell(self, outcome: Outcome) -> None:
        for listener in self._listeners:
            if outcome in ("failed", "lost"):
                listener.failure(self, CallError(outcome))
            else:
                listener.success(self)
