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
from outrider.host import deadman
from outrider.host.config import Config
from outrider.host.crash_loop import CrashLoop, backoff_s
from outrider.host.launch import config_file, launch_of, prepare
from outrider.host.ports import choose_ports
from outrider.host.processes import age_s
from outrider.host.reports import InstanceStatus
from outrider.host.state import Kept, KeptStore, Local
from outrider.host.supervisor import Exit, Launch, Process, Supervisor
from outrider.registry.layout import AgentDoc, Placed

log = logging.getLogger("outrider.instance")

STEADY_S = 10.0  # an instance that was ready this long starts again without back-off
WELL = ("passing", "warning")
COLD = "standby: starts when it holds the lease"
DRAIN_S = 0.1  # from leaving the routing sets to SIGTERM: until every reader has seen it


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
        self._config = config
        self._supervisor = supervisor
        self._store = store
        self._turns = turns
        self._probes = probes
        self._changed = changed
        self._kept = kept
        self._adopted = adopted
        self._wanted: tuple[AgentDoc, Placed] | None = (doc, placed)
        self._told = asyncio.Event()
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._ready = asyncio.Event()
        self._ready_at = math.inf
        self._was_started = False
        self._hung = ""
        self._ending = False
        self._waits = False
        self._lease_over = False
        self._fencing: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self._probing: Probing | None = None
        role: Role = "replica" if doc.agent.mode == "replicated" else "standby"
        self.local = Local(doc, placed, role=role, ports=dict(kept.ports) if kept else {})
        self.local.generation = kept.placed.generation if kept else 0
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

    @property
    def pid(self) -> int | None:
        """Of its process, None while it has none."""
        return self.local.pid

    @property
    def grown_up(self) -> bool:
        """False while its process was never ready and may still be starting."""
        process = self._process
        if process is None or self._ready.is_set():
            return process is not None
        return age_s(process.started) > self.local.doc.agent.start_timeout_s

    async def kill(self, why: str) -> None:
        """SIGKILL its process, which hangs: what follows is as after any other death."""
        if self._process is None or self._ending:
            return
        if not self._hung:
            log.warning("%s (pid %d) hangs and is killed: %s", self.local.instance, self._process.pid, why)
        self._hung = why
        await self._supervisor.kill(self._process)

    def lease_changed(self) -> None:
        """It got or lost its lease: what knows leases minds that by itself, the others are started and killed."""
        if self.local.doc.agent.fence is None:
            return
        if not self._turns.holds_lease(self.local.instance):
            self._fence_off("its lease is over")
        elif self._waits:
            # Said at once: callers are not to be sent to a holder that does not run yet.
            self._mark("starting", "starting: it holds the lease now")
            self._told.set()

    def check_guard(self) -> None:
        """A process whose dead-man is gone is not left to itself."""
        lease = lease_path(self._config.runtime_dir, self.local.instance)
        runs = self.local.doc.agent.fence and self.local.pid and self.local.status in WELL
        if runs and not deadman.is_guarded(lease):
            self._fence_off("its dead-man is gone")

    def needs_changed(self) -> None:
        """What it lacks may be different: say so, if it is well otherwise."""
        if self.local.status in WELL:
            self._mark_well()

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
            crashes.failed(started=self._was_started, steady=time.monotonic() - self._ready_at > STEADY_S)
            if reason := crashes.reason_to_park(doc.name, doc.agent.restart, ended):
                crashes.clear()
                await self._park(Kept(doc, placed, self.local.ports, reason))
                continue
            self.local.restarts += 1
            await self._pause(backoff_s(doc.agent.restart, crashes.failures))
        await self._end_process("no longer placed here")
        self._store.forget(self.local.instance)
        self._supervisor.forget(self.local.instance)
        config_file(self.local.instance, self._config).unlink(missing_ok=True)

    async def _run_once(self, doc: AgentDoc, placed: Placed) -> Exit | None:
        """One process from start to end: how it ended, or None if it was ended on purpose."""
        self._ready_at, self._was_started = math.inf, False
        try:
            agent = agent_on(doc.agent, placed.entry)
            if not await self._take_over(agent):
                await self._wait_for_needs(placed)
                if agent.fence and not await self._wait_for_lease(doc, placed, agent):
                    return None
                await self._start(doc, placed, agent)
            return await self._serve()
        except OutriderError as error:
            await self._end_process("could not start")
            ended = Exit(code=None, signal=None, reason=f"cannot start: {error.message}")
            self._mark("critical", f"exited: {ended.reason}")
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
        await self._end_process("stopped by request")
        self._mark("stopped", "stopped: by request")
        if self._kept and self._kept.parked:
            await self._park(replace(self._kept, parked=""))
        await self._told.wait()

    def _is_parked(self) -> bool:
        """Whether this version failed too often, also if an earlier shim saw that."""
        if not (self._kept and self._kept.parked and self._same_process_will_do()) or self._adopted:
            return False
        self._mark("parked", self._kept.parked)
        return True

    async def _park(self, kept: Kept) -> None:
        """Remember on disk whether it is parked, and why."""
        self._kept = kept
        if kept.parked:
            log.warning("%s is %s", self.local.instance, kept.parked)
            self._mark("parked", kept.parked)
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
        self._ready_at = time.monotonic()
        if not self._same_process_will_do():
            await self._end_process("another version is wanted")
            return False
        if agent.fence and not self._turns.holds_lease(self.local.instance):
            await self._end_process("its lease is over")
            return False
        log.info("%s runs as pid %d and was taken over", self.local.instance, adopted.pid)
        # It served until a moment ago: it stays in routing until a probe says otherwise.
        self._mark_well()
        self._probe(agent)
        return True

    async def _wait_for_needs(self, placed: Placed) -> None:
        if self.local.status != "critical":  # one that just ended keeps saying why until it runs again
            self._mark("starting", "starting: waits for its needs")
        if missing := await self._turns.wait_for_needs(self.local.doc, placed):
            log.warning("%s starts although %s", placed.instance, missing)

    async def _wait_for_lease(self, doc: AgentDoc, placed: Placed, agent: Agent) -> bool:
        """A cold standby: it has everything but a process, until it holds the lease. False if another is wanted."""
        self.local.ports = self._choose_ports(agent, placed.instance)
        await asyncio.to_thread(self._prepare, doc, placed, self.local.ports)
        self._kept = Kept(doc, placed, self.local.ports)
        self._waits = True
        try:
            self._mark_well()
            while not self._turns.holds_lease(placed.instance):
                await self._told.wait()
                if not self._same_process_will_do():
                    return False
                self._told.clear()
                self._changed(self.local)
        finally:
            self._waits = False
        self._mark("starting", "starting: it holds the lease now")
        return True

    async def _start(self, doc: AgentDoc, placed: Placed, agent: Agent) -> None:
        """Start a process when its turn has come, and wait until it is ready or the time for that is over."""
        async with self._turns.slots:
            self.local.ports = self._choose_ports(agent, placed.instance)
            launch = await asyncio.to_thread(self._prepare, doc, placed, self.local.ports)
            self._kept = Kept(doc, placed, self.local.ports)
            process = await self._supervisor.start(launch)
            self._watch(process)
            log.info("%s starts as pid %d at version %s", placed.instance, process.pid, doc.version)
            self._mark("starting", "starting: not ready yet")
            self._probe(agent)
            timely = await self._until_ready(agent.start_timeout_s)
        if not timely:
            raise HostError(f"not ready within {agent.start_timeout_s:g} s ({self.local.detail})")

    async def _until_ready(self, timeout_s: float) -> bool:
        """Wait until it is ready, has ended, or another one is wanted. False if the time was over first."""
        deadline = time.monotonic() + timeout_s
        while self._process and not self._ready.is_set():
            if self._told.is_set() and not self._same_process_will_do():
                return True
            self._told.clear()  # it was about others
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            await self._first_of(self._ready.wait(), timeout_s=left_s)
        return True

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

    def _prepare(self, doc: AgentDoc, placed: Placed, ports: dict[str, int]) -> Launch:
        """Write what the process will read. Runs in a thread: it waits for the disk."""
        launch = launch_of(doc, placed, self._config, ports)
        prepare(launch, doc, placed, self._config)
        self._store.save(Kept(doc, placed, ports))
        return launch

    def _watch(self, process: Process) -> None:
        self._process = process
        self.local.pid = process.pid
        self._was_started = True
        self._hung = ""
        self._lease_over = False
        self._ready.clear()
        self._ended = asyncio.get_running_loop().create_future()
        self._supervisor.watch_exit(process, self._died, self._exited)

    def _died(self, process: Process) -> None:
        """Runs within a millisecond of death: out of routing first, everything else later."""
        if self._process is None or process.pid != self._process.pid:
            return
        self._stop_probing()
        self.local.pid = None
        # Asked before its shim gives the lease up for this death.
        self._lease_over = self.local.doc.agent.fence is not None and not self._turns.holds_lease(process.instance)
        if self._ending:
            self._changed(self.local)
        else:
            # Not `exited:`, so that hosts which heard this are told how it ended as soon as that is known.
            self._mark("critical", "died: how is not known yet")

    def _exited(self, process: Process, ended: Exit) -> None:
        """How it ended is known: what comes next depends on it."""
        if self._process is None or process.pid != self._process.pid:
            return
        self._process = None
        self.local.pid = None
        if self._hung:
            ended = replace(ended, reason=f"hung and was killed ({self._hung})")
        elif self._lease_over:
            ended = replace(ended, reason=f"its lease was over: {ended.reason}")
        if not self._ending:
            self._mark("critical", f"exited: {ended.reason}")
            log.warning("%s (pid %d) ended: %s", self.local.instance, process.pid, ended.reason)
        self._ended.set_result(ended)

    async def _serve(self) -> Exit | None:
        """Until the process ends (how) or the documents want another one (None, after it was stopped)."""
        while True:
            await self._first_of(self._told.wait())
            if self._ended.done():
                return None if self._lease_over else self._ended.result()
            self._told.clear()
            if not self._same_process_will_do():
                await self._end_process("the documents want another one")
                return None
            self._changed(self.local)

    async def _first_of(self, *waits: Coroutine[Any, Any, Any], timeout_s: float | None = None) -> None:
        """Return when the process ended, something was told, one of `waits` is over, or the time is."""
        tasks = [asyncio.ensure_future(wait) for wait in (*waits, self._told.wait())]
        try:
            waiting: list[asyncio.Future[Any]] = [*tasks, self._ended]
            await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _end_process(self, why: str) -> None:
        """Out of routing, a moment for callers to notice, then stopped. Nothing happens if nothing runs."""
        process = self._process
        self._stop_probing()
        if process is None:
            return
        self._ending = True
        try:
            self._mark("stopped", f"stopped: {why}")
            await asyncio.sleep(DRAIN_S)
            log.info("%s (pid %d) is stopped: %s", self.local.instance, process.pid, why)
            await self._supervisor.stop(process, self.local.doc.agent.stop_timeout_s)
        finally:
            self._ending = False
        self._process = None
        self.local.pid = None

    def _fence_off(self, why: str) -> None:
        """Kill what must not work on. Its dead-man does the same by the lease's deadline, where this shim cannot."""
        if self._process and self.local.pid and not self._fencing:
            log.warning("%s (pid %d) is killed: %s", self.local.instance, self._process.pid, why)
            self._fencing = asyncio.get_running_loop().create_task(self._supervisor.kill(self._process))
            self._fencing.add_done_callback(self._fenced_off)

    def _fenced_off(self, task: asyncio.Task[None]) -> None:
        self._fencing = None
        if not task.cancelled() and (error := task.exception()):
            log.error("%s is left to its dead-man: it could not be killed", self.local.instance, exc_info=error)

    def _probe(self, agent: Agent) -> None:
        self._probing = self._probes(self.local, agent, self._probed)
        self._probing.start()

    def _stop_probing(self) -> None:
        if self._probing:
            self._probing.stop()
            self._probing = None

    def _probed(self, instance: str, healthy: bool, detail: str) -> None:
        """A probe's verdict changed. A process that has never been ready is not ill, it is starting."""
        if healthy:
            if self.local.status not in WELL:
                log.info("%s is well after %.1f s", instance, time.time() - self.local.since)
            if not self._ready.is_set():
                self._ready_at = min(self._ready_at, time.monotonic())
            self._ready.set()
            self._mark_well()
        elif self._ready.is_set() or self.local.status in WELL:
            self._mark("critical", f"probe: {detail}")
            log.warning("%s fails its probe: %s", instance, detail)
        else:
            self._mark("starting", f"starting: {detail}")

    def _mark_well(self) -> None:
        if self._kept:
            self.local.generation = self._kept.placed.generation
        lacking = self._turns.lacks(self.local.instance)
        self._mark("warning", lacking) if lacking else self._mark("passing", COLD if self._waits else "ok")

    def _mark(self, status: InstanceStatus, detail: str) -> None:
        if (status, detail) == (self.local.status, self.local.detail):
            return
        if status != self.local.status:
            self.local.since = time.time()
        self.local.status, self.local.detail = status, detail
        self._changed(self.local)
