"""The life of one instance: wait its turn, start, probe, serve, end; again, until it is no longer placed here.

`Runner.keep` is the protocol, top to bottom. What it decides is written in `Local` and told to the host through
`changed`; what it is told (a new version, stop, restart) arrives through `tell`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from msgspec.structs import replace

from outrider.discovery.lease_file import lease_path
from outrider.discovery.records import Role
from outrider.errors import HostError, OutriderError
from outrider.fleet.effective import agent_on
from outrider.fleet.spec import Agent
from outrider.host.config import Config
from outrider.host.crash_loop import CrashLoop, backoff_s
from outrider.host.health import Health, Probes
from outrider.host.launch import config_file, launch_of, prepare
from outrider.host.ports import choose_ports
from outrider.host.state import Kept, KeptStore, Local
from outrider.host.supervisor import Exit, Launch, Process, Supervisor
from outrider.host.watched_process import WatchedProcess
from outrider.registry.layout import AgentDoc, Placed

log = logging.getLogger("outrider.instance")

STEADY_S = 10.0  # an instance that was ready this long starts again without back-off


class Turns(Protocol):
    """Who may start when: needs first, and only some at a time."""

    async def wait_for_needs(self, doc: AgentDoc, placed: Placed) -> str:
        """Return when the needs serve or the wait is over; the text says what is still missing."""
        ...

    @property
    def slots(self) -> asyncio.Semaphore:
        """Held from the start of a process to its first passing probe."""
        ...

    def lacks(self, instance: str) -> str:
        """Which required needs of it nobody serves, in words; empty if all are served."""
        ...

    def reserved_ports(self, instance: str) -> frozenset[int]:
        """Ports that other instances of this host hold or are declared to use."""
        ...

    def holds_lease(self, instance: str) -> bool:
        """Whether an instance of a singleton holds the lease at this moment."""
        ...


class Runner:
    """Keeps one instance running as documents say. All methods run on the event loop."""

    def __init__(
        self,
        doc: AgentDoc,
        placed: Placed,
        *,
        config: Config,
        supervisor: Supervisor,
        store: KeptStore,
        turns: Turns,
        probes: Probes,
        changed: Callable[[Local], None],
        kept: Kept | None = None,
        adopted: Process | None = None,
    ) -> None:
        role: Role = "replica" if doc.agent.mode == "replicated" else "standby"
        self.local = Local(doc, placed, role=role, ports=dict(kept.ports) if kept else {})
        self.local.generation = kept.placed.generation if kept else 0
        self.health = Health(self.local, probes, turns.lacks, changed)
        lease = lease_path(config.runtime_dir, placed.instance)
        self.process = WatchedProcess(self.health, supervisor, lease, turns.holds_lease)
        self._config = config
        self._supervisor = supervisor
        self._store = store
        self._turns = turns
        self._kept = kept
        self._adopted = adopted
        self._wanted: tuple[AgentDoc, Placed] | None = (doc, placed)
        self._told = asyncio.Event()
        self._was_started = False
        self.task = asyncio.get_running_loop().create_task(self.keep(), name=placed.instance)

    def tell(self, doc: AgentDoc, placed: Placed) -> None:
        """What the documents say now. Acts at once if that asks for another process."""
        self._wanted = (doc, placed)
        self._told.set()

    def remove(self) -> None:
        """It is no longer placed here: stop it and finish `keep`."""
        self._wanted = None
        self._told.set()

    def abandon(self) -> None:
        """The shim ends; the process stays and the next shim adopts it."""
        self.task.cancel()

    @property
    def wanted(self) -> tuple[AgentDoc, Placed] | None:
        """What the documents say; None once it is no longer placed here."""
        return self._wanted

    def lease_changed(self) -> None:
        """It got or lost its lease: what knows leases minds that by itself, the others are started and killed."""
        if self.local.doc.agent.fence is None:
            return
        if not self._turns.holds_lease(self.local.instance):
            self.process.fence_off("its lease is over")
        elif self.health.cold:
            # Said at once: callers are not to be sent to a holder that does not run yet.
            self.health.mark("starting", "starting: it holds the lease now")
            self._told.set()

    async def keep(self) -> None:
        """The whole protocol of one instance."""
        crashes = CrashLoop()
        while self._wanted is not None:
            self._told.clear()
            doc, placed = self._target()
            if placed.state == "stopped":
                await self._stay_stopped()
                continue
            if self._is_parked():
                await self._told.wait()
                continue
            ended = await self._run_once(doc, placed)
            if ended is None:
                crashes.clear()
                continue
            crashes.failed(started=self._was_started, steady=time.monotonic() - self.health.ready_at > STEADY_S)
            if reason := crashes.reason_to_park(doc.name, doc.agent.restart, ended):
                crashes.clear()
                await self._park(Kept(doc, placed, self.local.ports, reason))
                continue
            self.local.restarts += 1
            await self._pause(backoff_s(doc.agent.restart, crashes.failures))
        await self.process.end("no longer placed here")
        self._store.forget(self.local.instance)
        self._supervisor.forget(self.local.instance)
        config_file(self.local.instance, self._config).unlink(missing_ok=True)

    async def _run_once(self, doc: AgentDoc, placed: Placed) -> Exit | None:
        """One process from start to end: how it ended, or None if it was ended on purpose."""
        self.health.ready_at, self._was_started = math.inf, False
        try:
            agent = agent_on(doc.agent, placed.entry)
            if not await self._take_over(agent):
                await self._wait_for_needs(placed)
                if agent.fence and not await self._wait_for_lease(doc, placed, agent):
                    return None
                await self._start(doc, placed, agent)
            return await self._serve()
        except OutriderError as error:
            await self.process.end("could not start")
            ended = Exit(code=None, signal=None, reason=f"cannot start: {error.message}")
            self.health.mark("critical", f"exited: {ended.reason}")
            return ended

    def _target(self) -> tuple[AgentDoc, Placed]:
        """The document to run: the published one, or the one that it was placed at and has not left yet."""
        assert self._wanted is not None
        doc, placed = self._wanted
        if found := doc.at(placed.version):
            doc = found
        elif self._kept and self._kept.doc.version == placed.version:
            doc = self._kept.doc
        self.local.doc, self.local.placed = doc, placed
        return doc, placed

    def _same_process_will_do(self) -> bool:
        """True if what runs is what is wanted: same version, no newer restart asked for, not stopped."""
        if self._wanted is None or self._kept is None:
            return False
        doc, placed = self._target()
        same = doc.version == self._kept.doc.version and placed.generation <= self._kept.placed.generation
        return same and placed.state == "run"

    async def _stay_stopped(self) -> None:
        await self.process.end("stopped by request")
        self.health.mark("stopped", "stopped: by request")
        if self._kept and self._kept.parked:
            await self._park(replace(self._kept, parked=""))
        await self._told.wait()

    def _is_parked(self) -> bool:
        """Whether this version failed too often, also if an earlier shim saw that."""
        if not (self._kept and self._kept.parked and self._same_process_will_do()) or self._adopted:
            return False
        self.health.mark("parked", self._kept.parked)
        return True

    async def _park(self, kept: Kept) -> None:
        """Remember on disk whether it is parked, and why."""
        self._remember(kept)
        if kept.parked:
            log.warning("%s is %s", self.local.instance, kept.parked)
            self.health.mark("parked", kept.parked)
        await asyncio.to_thread(self._store.save, kept)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until something else is wanted of this instance."""
        before = self._asked_for()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._asked_for() == before:
                    await self._told.wait()
                    self._told.clear()

    def _asked_for(self) -> tuple[str, int, str] | None:
        if self._wanted is None:
            return None
        placed = self._wanted[1]
        return placed.version, placed.generation, placed.state

    async def _take_over(self, agent: Agent) -> bool:
        """Keep the process that an earlier shim left, if it is the right one; end it if it is not."""
        adopted, self._adopted = self._adopted, None
        if adopted is None:
            return False
        self._watch(adopted)
        self.health.ready_at = time.monotonic()
        if not self._same_process_will_do():
            await self.process.end("another version is wanted")
            return False
        if agent.fence and not self._turns.holds_lease(self.local.instance):
            await self.process.end("its lease is over")
            return False
        log.info("%s runs as pid %d and was taken over", self.local.instance, adopted.pid)
        # It served until a moment ago: it stays in routing until a probe says otherwise.
        self.health.mark_well()
        self.health.probe(agent)
        return True

    async def _wait_for_needs(self, placed: Placed) -> None:
        if self.local.status != "critical":  # one that just ended keeps saying why until it runs again
            self.health.mark("starting", "starting: waits for its needs")
        if missing := await self._turns.wait_for_needs(self.local.doc, placed):
            log.warning("%s starts although %s", placed.instance, missing)

    async def _wait_for_lease(self, doc: AgentDoc, placed: Placed, agent: Agent) -> bool:
        """A cold standby: it has everything but a process, until it holds the lease. False if another is wanted."""
        await self._prepare(doc, placed, agent)
        self.health.cold = True
        try:
            self.health.mark_well()
            while not self._turns.holds_lease(placed.instance):
                await self._told.wait()
                if not self._same_process_will_do():
                    return False
                self._told.clear()
                self.health.tell()
        finally:
            self.health.cold = False
        self.health.mark("starting", "starting: it holds the lease now")
        return True

    async def _start(self, doc: AgentDoc, placed: Placed, agent: Agent) -> None:
        """Start a process when its turn has come, and wait until it is ready or the time for that is over."""
        async with self._turns.slots:
            launch = await self._prepare(doc, placed, agent)
            process = await self._supervisor.start(launch)
            self._watch(process)
            log.info("%s starts as pid %d at version %s", placed.instance, process.pid, doc.version)
            self.health.mark("starting", "starting: not ready yet")
            self.health.probe(agent)
            timely = await self._until_ready(agent.start_timeout_s)
        if not timely:
            raise HostError(f"not ready within {agent.start_timeout_s:g} s ({self.local.detail})")

    async def _until_ready(self, timeout_s: float) -> bool:
        """Wait until it is ready, has ended, or another one is wanted. False if the time was over first."""
        deadline = time.monotonic() + timeout_s
        while self.process.is_there and not self.health.ready.is_set():
            if self._told.is_set() and not self._same_process_will_do():
                return True
            self._told.clear()  # it was about others
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            await self._first_of(self.health.ready.wait(), timeout_s=left_s)
        return True

    def _watch(self, process: Process) -> None:
        self._was_started = True
        self.process.watch(process)

    def _remember(self, kept: Kept) -> None:
        self._kept = kept
        self.health.generation = kept.placed.generation

    async def _prepare(self, doc: AgentDoc, placed: Placed, agent: Agent) -> Launch:
        """Choose its ports and write what its process will read."""
        self.local.ports = self._choose_ports(agent, placed.instance)
        kept = Kept(doc, placed, self.local.ports)
        launch = await asyncio.to_thread(self._write, kept)
        self._remember(kept)
        return launch

    def _write(self, kept: Kept) -> Launch:
        """Runs in a thread: it waits for the disk."""
        launch = launch_of(kept.doc, kept.placed, self._config, kept.ports)
        prepare(launch, kept.doc, kept.placed, self._config)
        self._store.save(kept)
        return launch

    def _choose_ports(self, agent: Agent, instance: str) -> dict[str, int]:
        choice = choose_ports(
            agent.ports,
            self._config.address,
            may_move=self._config.free_ports,
            keep=self.local.ports,
            avoid=self._turns.reserved_ports(instance),
        )
        for moved in choice.moved:
            note = "%s: port %s (%s) is taken by %s, it uses %d instead"
            log.warning(note, instance, moved.wanted, moved.name, moved.owner, moved.chosen)
        return choice.ports

    async def _serve(self) -> Exit | None:
        """Until the process ends (how) or the documents want another one (None, after it was stopped)."""
        while True:
            await self._first_of(self._told.wait())
            if self.process.ended.done():
                return None if self.process.lease_over else self.process.ended.result()
            self._told.clear()
            if not self._same_process_will_do():
                await self.process.end("the documents want another one")
                return None
            self.health.tell()

    async def _first_of(self, *waits: Coroutine[Any, Any, Any], timeout_s: float | None = None) -> None:
        """Return when the process ended, something was told, one of `waits` is over, or the time is."""
        tasks = [asyncio.ensure_future(wait) for wait in (*waits, self._told.wait())]
        try:
            waiting: list[asyncio.Future[Any]] = [*tasks, self.process.ended]
            await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
