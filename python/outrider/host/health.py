"""What an instance is said to be: starting, passing, failing and why, by its probes and by what its runner does."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

from outrider.fleet.spec import Agent
from outrider.host.reports import InstanceStatus
from outrider.host.state import Local

log = logging.getLogger("outrider.instance")

WELL = ("passing", "warning")
COLD = "standby: starts when it holds the lease"


class Probing(Protocol):
    """The probes of one running process."""

    def start(self) -> None:
        """Begin: quickly until the first success, then at the probes' own intervals."""
        ...

    def stop(self) -> None:
        """End; no verdict follows."""
        ...


Verdict = Callable[[str, bool, str], None]
Probes = Callable[[Local, Agent, Verdict], Probing]


class Health:
    """Of one instance: writes it into `local`, and tells the host through `changed`.

    lacks: which required needs nobody serves, in words
    generation: that of the placement which its process was started for, shown once it is well
    cold: whether it waits for the lease before it starts, which is all it has to do
    """

    def __init__(
        self, local: Local, probes: Probes, lacks: Callable[[str], str], changed: Callable[[Local], None]
    ) -> None:
        self.local = local
        self.ready = asyncio.Event()
        self.ready_at = math.inf
        self.generation = local.generation
        self.cold = False
        self._probes = probes
        self._lacks = lacks
        self._changed = changed
        self._probing: Probing | None = None

    @property
    def is_well(self) -> bool:
        """Whether callers are sent to it."""
        return self.local.status in WELL

    def probe(self, agent: Agent) -> None:
        """Its process runs: ask it how it is."""
        self._probing = self._probes(self.local, agent, self._probed)
        self._probing.start()

    def stop_probing(self) -> None:
        """Its process is gone, or about to be."""
        if self._probing:
            self._probing.stop()
            self._probing = None

    def needs_changed(self) -> None:
        """What it lacks may be different: say so, if it is well otherwise."""
        if self.is_well:
            self.mark_well()

    def mark_well(self) -> None:
        """It serves, or as a cold standby is ready to."""
        self.local.generation = self.generation
        lacking = self._lacks(self.local.instance)
        self.mark("warning", lacking) if lacking else self.mark("passing", COLD if self.cold else "ok")

    def mark(self, status: InstanceStatus, detail: str) -> None:
        """Tell the host, if that is new."""
        if (status, detail) == (self.local.status, self.local.detail):
            return
        if status != self.local.status:
            self.local.since = time.time()
        self.local.status, self.local.detail = status, detail
        self.tell()

    def tell(self) -> None:
        """Tell the host what else is new in `local`."""
        self._changed(self.local)

    def _probed(self, instance: str, healthy: bool, detail: str) -> None:
        """A probe's verdict changed. A process that has never been ready is not ill, it is starting."""
        if healthy:
            if not self.is_well:
                log.info("%s is well after %.1f s", instance, time.time() - self.local.since)
            if not self.ready.is_set():
                self.ready_at = min(self.ready_at, time.monotonic())
            self.ready.set()
            self.mark_well()
        elif self.ready.is_set() or self.is_well:
            self.mark("critical", f"probe: {detail}")
            log.warning("%s fails its probe: %s", instance, detail)
        else:
            self.mark("starting", f"starting: {detail}")
