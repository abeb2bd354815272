"""Calls at a fixed rate, whether or not earlier ones were answered, and what became of each."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from outrider.errors import CallError


class Made(NamedTuple):
    """One call: seconds since the load began at which it was due and over; who answered or failed; the error's kind."""

    due: float
    ended: float
    instance: str
    error: str


class Load:
    """`call` by threads, `rate` times a second from construction to `stop`. A late call counts from when it was due."""

    def __init__(self, call: Callable[[], Any], rate: float, threads: int) -> None:
        self.made: list[Made] = []
        self._call = call
        self._rate = rate
        self._tickets = itertools.count()
        self._stopped = False
        self.began = time.monotonic()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def now(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def stop(self) -> list[Made]:
        """Make no more; what was made."""
        self._stopped = True
        for thread in self._threads:
            thread.join()
        return self.made

    def _run(self) -> None:
        while not self._stopped:
            due = next(self._tickets) / self._rate
            time.sleep(max(0.0, due - self.now()))
            instance, error = "", ""
            try:
                instance = self._call()
            except CallError as raised:
                instance, error = raised.instance, raised.kind
            self.made.append(Made(due, self.now(), instance, error))
