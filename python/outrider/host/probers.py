"""Asking one instance once whether it is well: what all kinds of probes share, and the heartbeat.

Probes run hundreds of times a second on a busy host, so they are callbacks on the event loop: no task for each.
"""

from __future__ import annotations

import asyncio
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from msgspec import Struct

from outrider.fleet.spec import Probe

Kind = Literal["answer", "refusal", "silence"]


class ProbeResult(Struct, frozen=True):
    """What one probe found. `detail`: why it is not well; `seconds`: until the answer.

    kind: answer (good or bad, or the question could not be asked), refusal (a connection refused or reset, as by a
        process that is just opening its port anew), silence (nothing within the time budget, or a stale heartbeat)
    """

    ok: bool
    detail: str
    seconds: float
    kind: Kind = "answer"


class Target(Struct, frozen=True):
    """Whom to ask: the instance, where it listens, and the file that it touches. `port` is 0 if it has none.

    `agent` and the `runtime` folder lead to its Unix socket for calls.
    """

    instance: str
    address: str
    port: int
    ports: dict[str, int]
    heartbeat: Path
    agent: str = ""
    runtime: Path = Path()


Done = Callable[[ProbeResult], None]
Clock = Callable[[], float]


class Prober(ABC):
    """One probe of one instance, asked again and again. At most one question is under way."""

    def __init__(self, probe: Probe, target: Target) -> None:
        self.probe = probe
        self.target = target
        self._loop = asyncio.get_running_loop()
        self._done: Done | None = None
        self._began = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, done: Done) -> None:
        """Ask; `done` is called with the result within the probe's time-out, perhaps before this returns."""
        assert self._done is None, "the last question is not answered yet"
        self._done = done
        self._began = time.perf_counter()
        self._timer = self._loop.call_later(self.probe.timeout_s, self._expired)
        self._ask()

    async def check(self) -> ProbeResult:
        """Ask and wait for the result."""
        answer: asyncio.Future[ProbeResult] = self._loop.create_future()
        self.begin(lambda result: None if answer.done() else answer.set_result(result))
        return await answer

    def close(self) -> None:
        """Give up the question under way, without a result, and what is kept open."""
        self._done = None
        if self._timer:
            self._timer.cancel()
        self._drop()

    @property
    def asking(self) -> bool:
        """True while a question is under way."""
        return self._done is not None

    def _finish(self, ok: bool, detail: str = "", kind: Kind = "answer") -> None:
        done, self._done = self._done, None
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if done:
            done(ProbeResult(ok, detail, time.perf_counter() - self._began, kind))

    def _expired(self) -> None:
        self._drop()
        self._finish(False, f"{self.describe()}: no answer within {self.probe.timeout_s:g} s", "silence")

    @abstractmethod
    def describe(self) -> str:
        """What is asked, for people."""

    @abstractmethod
    def _ask(self) -> None:
        """Send the question; `_finish` ends it."""

    @abstractmethod
    def _drop(self) -> None:
        """Close what is open; no answer may follow."""


class HeartbeatProber(Prober):
    """Well if the file was touched not longer ago than the probe's time-out."""

    def __init__(self, probe: Probe, target: Target, clock: Clock = time.time) -> None:
        super().__init__(probe, target)
        self._clock = clock

    def describe(self) -> str:
        """What is asked, for people."""
        return "heartbeat"

    def _ask(self) -> None:
        try:
            touched = os.stat(self.target.heartbeat).st_mtime
        except OSError as error:
            self._finish(False, f"heartbeat: {self.target.heartbeat}: {error.strerror}")
            return
        age_s = self._clock() - touched
        if touched == 0:
            self._finish(False, "heartbeat: none yet")
        elif age_s > self.probe.timeout_s:
            # No figure: this text goes to Consul, where each change of it is a write.
            self._finish(False, f"heartbeat: none for more than {self.probe.timeout_s:g} s", "silence")
        else:
            self._finish(True)

    def _drop(self) -> None:
        """Nothing is open."""
