"""What keeps an instance of a singleton from working without its lease."""

from __future__ import annotations

import logging
import math
import os
import signal
import time

from outrider.discovery.api import lookup
from outrider.discovery.lease_file import LeaseReader
from outrider.errors import NotHolder, OutriderError

log = logging.getLogger("outrider.calls")

# A lease that ran out leaves this much time until another instance may hold it, less what the clocks need.
STOP_S = 0.3


class Fence:
    """Of one instance. A call is accepted under the epoch of that moment, and answered only under the same."""

    def __init__(self, agent: str, instance: str, lease: LeaseReader) -> None:
        self._agent = agent
        self._instance = instance
        self._lease = lease
        self._over_at = math.inf  # since when something goes on without a lease, monotonic seconds

    def admit(self, known_epoch: int) -> int:
        """The epoch to work under. Raises NotHolder, which says who is."""
        epoch = self._lease.accepts()
        if not epoch or known_epoch > epoch:
            raise NotHolder(f"{self._instance} holds no lease of {self._agent}{self._holder()}")
        return epoch

    @property
    def epoch(self) -> int:
        """The epoch that is held now, 0 for none."""
        return self._lease.epoch()

    @property
    def open_epoch(self) -> int:
        """The same for what begins now: 0 also while the instance is being closed."""
        return self._lease.accepts()

    def still(self, epoch: int) -> bool:
        """Whether what was begun under this epoch may go on, and be answered."""
        return self._lease.epoch() == epoch

    def overrun(self, what: str) -> None:
        """A function goes on without its lease, and nothing else stops it: after STOP_S its process ends with it."""
        now = time.monotonic()
        if self._lease.epoch():
            self._over_at = math.inf  # this instance has the next lease itself
            return
        # The shim may have ended the lease before its deadline.
        self._over_at = min(self._over_at, now, self._lease.deadline_ns / 1e9 or now)
        if now - self._over_at >= STOP_S:
            log.critical("%s still works on %s without a lease: it ends", self._instance, what)
            os.kill(os.getpid(), signal.SIGKILL)

    def _holder(self) -> str:
        try:
            holders = lookup(self._agent).instances
        except OutriderError:
            return ""
        others = [instance.instance for instance in holders if instance.instance != self._instance]
        return f"; {others[0]} does" if others else "; nobody does at the moment"
