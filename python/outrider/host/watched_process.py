"""The process of an instance, from its start to how it ended; killed when it hangs, or must not work on.

A singleton that knows of no lease must not work on when its lease is over or its dead-man is gone. The dead-man does
the same by the lease's deadline, where this shim cannot.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from outrider.host import deadman
from outrider.host.health import Health
from outrider.host.processes import age_s
from outrider.host.supervisor import Exit, Process, Supervisor

log = logging.getLogger("outrider.instance")

DRAIN_S = 0.1  # from leaving the routing sets to SIGTERM: until every reader has seen it


class WatchedProcess:
    """Of one instance: one after the other, or none. All methods run on the event loop.

    lease: the file of the instance's lease
    ended: how the last one ended by itself, once that is known
    lease_over: whether the instance held no lease any more when it died
    """

    def __init__(self, health: Health, supervisor: Supervisor, lease: Path, holds_lease: Callable[[str], bool]) -> None:
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.lease_over = False
        self._health = health
        self._local = health.local
        self._supervisor = supervisor
        self._lease = lease
        self._holds_lease = holds_lease
        self._process: Process | None = None
        self._hung = ""
        self._ending = False
        self._fencing: asyncio.Task[None] | None = None

    @property
    def is_there(self) -> bool:
        """Whether there is one of which nobody knows yet that and how it ended."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """None while there is none."""
        return self._local.pid

    @property
    def grown_up(self) -> bool:
        """False while it was never ready and may still be starting."""
        process = self._process
        if process is None or self._health.ready.is_set():
            return process is not None
        return age_s(process.started) > self._local.doc.agent.start_timeout_s

    def watch(self, process: Process) -> None:
        """It was started, or an earlier shim left it."""
        self._process = process
        self._local.pid = process.pid
        self._hung = ""
        self.lease_over = False
        self._health.ready.clear()
        self.ended = asyncio.get_running_loop().create_future()
        self._supervisor.watch_exit(process, self._died, self._exited)

    def _died(self, process: Process) -> None:
        """Runs within a millisecond of death: out of routing first, everything else later."""
        if self._process is None or process.pid != self._process.pid:
            return
        self._health.stop_probing()
        self._local.pid = None
        # Asked before its shim gives the lease up for this death.
        self.lease_over = self._local.doc.agent.fence is not None and not self._holds_lease(process.instance)
        if self._ending:
            self._health.tell()
        else:
            # Not `exited:`, so that hosts which heard this are told how it ended as soon as that is known.
            self._health.mark("critical", "died: how is not known yet")

    def _exited(self, process: Process, ended: Exit) -> None:
        """How it ended is known: what comes next depends on it."""
        if self._process is None or process.pid != self._process.pid:
            return
        self._process = None
        self._local.pid = None
        if self._hung:
            ended = replace(ended, reason=f"hung and was killed ({self._hung})")
        elif self.lease_over:
            ended = replace(ended, reason=f"its lease was over: {ended.reason}")
        if not self._ending:
            self._health.mark("critical", f"exited: {ended.reason}")
            log.warning("%s (pid %d) ended: %s", self._local.instance, process.pid, ended.reason)
        self.ended.set_result(ended)

    async def end(self, why: str) -> None:
        """Out of routing, a moment for callers to notice, then stopped. Nothing happens if nothing runs."""
        process = self._process
        self._health.stop_probing()
        if process is None:
            return
        self._ending = True
        try:
            self._health.mark("stopped", f"stopped: {why}")
            await asyncio.sleep(DRAIN_S)
            log.info("%s (pid %d) is stopped: %s", self._local.instance, process.pid, why)
            await self._supervisor.stop(process, self._local.doc.agent.stop_timeout_s)
        finally:
            self._ending = False
        self._process = None
        self._local.pid = None

    async def kill(self, why: str) -> None:
        """SIGKILL one that hangs: what follows is as after any other death."""
        if self._process is None or self._ending:
            return
        if not self._hung:
            log.warning("%s (pid %d) hangs and is killed: %s", self._local.instance, self._process.pid, why)
        self._hung = why
        await self._supervisor.kill(self._process)

    def check_guard(self) -> None:
        """One whose dead-man is gone is not left to itself."""
        runs = self._local.doc.agent.fence and self._local.pid and self._health.is_well
        if runs and not deadman.is_guarded(self._lease):
            self.fence_off("its dead-man is gone")

    def fence_off(self, why: str) -> None:
        """Kill what must not work on."""
        if self._process and self._local.pid and not self._fencing:
            log.warning("%s (pid %d) is killed: %s", self._local.instance, self._process.pid, why)
            self._fencing = asyncio.get_running_loop().create_task(self._supervisor.kill(self._process))
            self._fencing.add_done_callback(self._fenced_off)

    def _fenced_off(self, task: asyncio.Task[None]) -> None:
        self._fencing = None
        if not task.cancelled() and (error := task.exception()):
            log.error("%s is left to its dead-man: it could not be killed", self._local.instance, exc_info=error)
