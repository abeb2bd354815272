"""Threads for the functions that an agent serves, started when first needed.

Not concurrent.futures: its threads are joined when the interpreter ends, so that one function that hangs would keep a
stopped agent alive, and its futures cost as much as a short call.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class Workers:
    """At most `most` threads. Used from one thread, which never submits more than that many jobs at a time."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0

    def submit(self, job: Callable[[], None]) -> None:
        """Run it soon; it must not raise."""
        if not self._idle.acquire(blocking=False) and self._threads < self._most:
            self._threads += 1
            threading.Thread(target=self._run, name=f"{self._name}-{self._threads}", daemon=True).start()
        self._jobs.put(job)

    def close(self) -> None:
        """Threads end as they come to it."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            self._idle.release()


async def run_to_end(workers: Workers, function: Callable[[], T]) -> T:
    """What it returns, from a thread. Cancelled, it still waits: nothing that has begun is left to itself."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            value = function()
        except BaseException as error:
            tell = partial(done.set_exception, error)
        else:
            tell = partial(done.set_result, value)
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            loop.call_soon_threadsafe(tell)

    workers.submit(run)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait([done])
        done.exception()  # seen
        raise
