"""A few threads for what takes time, so that the serving loop always answers /health. Started when first needed."""

from __future__ import annotations

import queue
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

THREADS = 8
WAITING = 32


class Workers:
    """Runs jobs on at most THREADS threads. Used from one thread."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0

    def submit(self, job: Callable[[], None]) -> bool:
        """Run `job` soon; it must not raise. False if too many wait already."""
        if self._jobs.qsize() >= WAITING:
            return False
        self._jobs.put(job)
        if not self._idle.acquire(blocking=False) and self._threads < THREADS:
            self._threads += 1
            # Daemons, because a job that hangs must not keep a stopping agent alive.
            threading.Thread(target=self._run, name=f"worker-{self._threads}", daemon=True).start()
        return True

    def _run(self) -> None:
        while True:
            self._jobs.get()()
            self._idle.release()
