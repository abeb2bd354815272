"""Calls on and on while something happens to who is called."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from outrider.calls.client import Client

T = TypeVar("T")
COUNTER = Path(__file__).parents[1] / "counter_agent.py"


class UnderLoad(Generic[T]):
    """From a thread, inside the block: `answers` with the monotonic second of each, and `errors`."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.answers: list[tuple[float, T]] = []
        self.errors: list[Exception] = []
        self._call = call
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def last(self) -> T:
        """The last answer. Raises IndexError before the first."""
        return self.answers[-1][1]

    def __enter__(self) -> UnderLoad[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.002):
            try:
                said = self._call()
            except Exception as error:
                self.errors.append(error)
            else:
                self.answers.append((time.monotonic(), said))


def counting(client: Client) -> UnderLoad[dict[str, Any]]:
    """Of the singleton that `COUNTER` is; each answer says its epoch and instance."""
    return UnderLoad(lambda: client.call("Counter", "add", timeout=5.0))
