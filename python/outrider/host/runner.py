"""The life of one instance: wait its turn, start, probe, serve, end; again, until it is no longer placed here.

`Runner.keep` is the protocol, top to bottom. What it decides is written in `Local` and told to the host through
`changed`; what it is told (a new version, stop, restart) arrives through `tell`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from outrider.discovery.records import Role
from outrider.errors import HostError, OutriderError
from outrider.fleet.effective import agent_on
from outrider.fleet.spec import Agent, Restart
from outrider.host.config import Config
from outrider.host.launch import launch_of, prepare
from outrider.host.ports import choose_ports
from outrider.host.reports import InstanceStatus
from outrider.host.state import Kept, KeptStore, Local
from outrider.host.supervisor import Exit, Launch, Process, Supervisor
from outrider.registry.layout import AgentDoc, Placed

log = logging.getLogger("outrider.instance")

STEADY_S = 10.0  # an instance that ran this long starts again without back-off
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

    def reserved_ports(self, instance: str) -> frozenset[int]:
        """Ports that other instances of this host hold or are declared to use."""
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


def backoff_s(restart: Restart, failures: int) -> float:
    """Seconds to wait before restart number `failures` in a row: none, then doubling up to the limit."""
    if failures <= 1:
        return 0.0
    return float(min(restart.max_backoff_s, restart.backoff_s * 2 ** min(failures - 2, 30)))


def restarts_after(restart: Restart, ended: Exit) -> bool:
    """Whether an instance that ended by itself is started again."""
    return restart.policy == "always" or (restart.policy == "on-failure" and ended.code != 0)


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
        self._ending = False
        self._process: Process | None = None
        self._probing: Probing | None = None
        role: Role = "replica" if doc.agent.mode == "replicated" else "holder"
        self.local = Local(doc, placed, role=role, ports=dict(kept.ports) if kept else {})
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

    async def keep(self) -> None:
        """The whole protocol of one instance."""
        failures = 0
        while self._wanted is not None:
            self._told.clear()
            doc, placed = self._target()
            if placed.state == "stopped":
                await self._stay_stopped()
                continue
            started = time.monotonic()
            ended = await self._run_once(doc, placed)
            if ended is None:
                failures = 0
                continue
            if not restarts_after(doc.agent.restart, ended):
                self._mark("parked", f"exited: {ended.reason}; its restart policy is {doc.agent.restart.policy}")
                await self._told.wait()
                continue
            failures = 1 if time.monotonic() - started > STEADY_S else failures + 1
            self.local.restarts += 1
            await self._pause(backoff_s(doc.agent.restart, failures))
        await self._end_process("no longer placed here")
        self._store.forget(self.local.instance)
        self._supervisor.forget(self.local.instance)

    async def _run_once(self, doc: AgentDoc, placed: Placed) -> Exit | None:
        """One process from start to end: how it ended, or None if it was ended on purpose."""
        try:
            agent = agent_on(doc.agent, placed.entry)
            if not await self._take_over(agent):
                await self._start(doc, placed, agent)
            return await self._serve()
        except OutriderError as error:
            await self._end_process("could not start")
            ended = Exit(code=None, signal=None, reason=f"cannot start: {error.message}")
            self._mark("critical", f"exited: {ended.reason}")
            return ended

    def _target(self) -> tuple[AgentDoc, Placed]:
        """The document to run: the published one or, while a rollout has not reached this instance, the kept one."""
        assert self._wanted is not None
        doc, placed = self._wanted
        if placed.version != doc.version and self._kept and self._kept.doc.version == placed.version:
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
        await self._told.wait()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until something new is told."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._told.wait()

    async def _take_over(self, agent: Agent) -> bool:
        """Keep the process that an earlier shim left, if it is the right one; end it if it is not."""
        adopted, self._adopted = self._adopted, None
        if adopted is None:
            return False
        self._watch(adopted)
        if not self._same_process_will_do():
            await self._end_process("another version is wanted")
            return False
        log.info("%s runs as pid %d and was taken over", self.local.instance, adopted.pid)
        # It served until a moment ago: it stays in routing until a probe says otherwise.
        self._mark("passing", "ok")
        self._probe(agent)
        return True

    async def _start(self, doc: AgentDoc, placed: Placed, agent: Agent) -> None:
        """Start a process when its turn has come, and wait until it is ready or the time for that is over."""
        if self.local.status != "critical":  # one that just ended keeps saying why until it runs again
            self._mark("starting", "starting: waits for its needs")
        missing = await self._turns.wait_for_needs(doc, placed)
        if missing:
            log.warning("%s starts although %s", placed.instance, missing)
        async with self._turns.slots:
            self.local.ports = self._choose_ports(agent, placed.instance)
            launch = await asyncio.to_thread(self._prepare, doc, placed, self.local.ports)
            self._kept = Kept(doc, placed, self.local.ports)
            process = await self._supervisor.start(launch)
            self._watch(process)
            log.info("%s starts as pid %d at version %s", placed.instance, process.pid, doc.version)
            self._mark("starting", "starting: not ready yet")
            self._probe(agent)
            await self._first_of(self._ready.wait(), timeout_s=agent.start_timeout_s)
        if self._process and not self._ready.is_set() and not self._told.is_set():
            raise HostError(f"not ready within {agent.start_timeout_s:g} s ({self.local.detail})")

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
        self._ready.clear()
        self._ended = asyncio.get_running_loop().create_future()
        self._supervisor.watch_exit(process, self._exited)

    def _exited(self, process: Process, ended: Exit) -> None:
        """Runs within a millisecond of death: out of routing first, everything else later."""
        if self._process is None or process.pid != self._process.pid:
            return
        self._process = None
        self.local.pid = None
        if not self._ending:
            self._mark("critical", f"exited: {ended.reason}")
            log.warning("%s (pid %d) ended: %s", self.local.instance, process.pid, ended.reason)
        self._stop_probing()
        self._ended.set_result(ended)

    async def _serve(self) -> Exit | None:
        """Until the process ends (how) or the documents want another one (None, after it was stopped)."""
        while True:
            await self._first_of(self._told.wait())
            if self._ended.done():
                return self._ended.result()
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
            if self.local.status != "passing":
                log.info("%s is well after %.1f s", instance, time.time() - self.local.since)
            self._ready.set()
            self._mark("passing", "ok")
        elif self._ready.is_set() or self.local.status == "passing":
            self._mark("critical", f"probe: {detail}")
            log.warning("%s fails its probe: %s", instance, detail)
        else:
            self._mark("starting", f"starting: {detail}")

    def _mark(self, status: InstanceStatus, detail: str) -> None:
        if (status, detail) == (self.local.status, self.local.detail):
            return
        if status != self.local.status:
            self.local.since = time.time()
        self.local.status, self.local.detail = status, detail
        self._changed(self.local)
