"""All instances of one host: documents in, runners told, and each change passed on to routing and Consul."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from outrider.fleet.graph import cycles
from outrider.fleet.spec import Fleet
from outrider.host.config import Config
from outrider.host.health import Probes
from outrider.host.runner import Runner
from outrider.host.state import Kept, KeptStore, Local
from outrider.host.supervisor import Process, Supervisor
from outrider.host.watched_process import WatchedProcess
from outrider.registry.layout import AgentDoc, Placed, PlacementDoc

log = logging.getLogger("outrider.host")

Desired = dict[str, tuple[AgentDoc, Placed]]


def desired_on(host: str, agents: Mapping[str, AgentDoc], placements: Mapping[str, PlacementDoc]) -> Desired:
    """What the documents want on `host`: instance to its document and placement."""
    return {
        placed.instance: (agents[name], placed)
        for name, placement in placements.items()
        if name in agents
        for placed in placement.instances
        if placed.host == host
    }


class AgentHost:
    """Runs what the documents place on this host. All methods run on the event loop."""

    def __init__(
        self,
        config: Config,
        supervisor: Supervisor,
        *,
        probes: Probes,
        changed: Callable[[Local], None],
        removed: Callable[[str], None],
        serves: Callable[[str], bool],
        lacks: Callable[[str], str],
        holds_lease: Callable[[str], bool],
    ) -> None:
        self._config = config
        self._supervisor = supervisor
        self._probes = probes
        self._changed_cb = changed
        self._removed_cb = removed
        self._serves = serves
        self._lacks = lacks
        self._holds_lease = holds_lease
        self._store = KeptStore(config.state_dir)
        self._kept = self._store.load()
        self._adopted: dict[str, Process] = {process.instance: process for process in supervisor.adopt()}
        self._in_cycle: dict[str, frozenset[str]] = {}
        self._news = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self.slots = asyncio.Semaphore(config.starts)
        self.runners: dict[str, Runner] = {}

    def start_from_disk(self) -> None:
        """Look after what ran here before, without waiting for Consul. Nothing is stopped on the word of a disk."""
        kept = {name: (item.doc, item.placed) for name, item in self._kept.items()}
        if kept:
            log.info("%d instances are known from disk, %d of them run", len(kept), len(self._adopted))
        for instance, (doc, placed) in kept.items():
            self._run(instance, doc, placed)

    def apply(self, agents: Mapping[str, AgentDoc], placements: Mapping[str, PlacementDoc], *, whole: bool) -> None:
        """Converge to the documents: start what is new, tell the rest, end what is gone.

        whole: what has no placement was removed. Without it Consul may have lost that, and what runs runs on.
        """
        fleet = Fleet("", {name: doc.agent for name, doc in agents.items()})
        self._in_cycle = {name: frozenset(cycle) for cycle in cycles(fleet) for name in cycle}
        desired = desired_on(self._config.host, agents, placements)
        for instance, (doc, placed) in desired.items():
            if instance in self.runners:
                self.runners[instance].tell(doc, placed)
            else:
                self._run(instance, doc, placed)
        for instance in self.runners.keys() - desired.keys():
            runner = self.runners[instance]
            if self._is_gone(runner.local, placements, whole):
                runner.remove()
        if whole:
            self._end_unknown()

    def _is_gone(self, local: Local, placements: Mapping[str, PlacementDoc], whole: bool) -> bool:
        placement = placements.get(local.doc.name)
        if placement is None:
            return whole
        here = (local.instance, self._config.host)
        return all((placed.instance, placed.host) != here for placed in placement.instances)

    def _end_unknown(self) -> None:
        """Processes that earlier shims left and that neither the disk nor the documents name."""
        for process in self._adopted.values():
            log.warning("%s (pid %d) runs here but is not placed here: stopped", process.instance, process.pid)
            task = asyncio.get_running_loop().create_task(self._supervisor.stop(process, 5.0))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        self._adopted.clear()

    def news(self) -> None:
        """Something in the fleet changed; whoever waits for a need looks again."""
        self._news.set()
        self._news.clear()

    async def stop_all(self) -> None:
        """End every instance and wait for it."""
        for runner in self.runners.values():
            runner.remove()
        await asyncio.gather(*(runner.task for runner in self.runners.values()), return_exceptions=True)

    async def abandon(self) -> None:
        """The shim ends, the processes go on."""
        for runner in self.runners.values():
            runner.abandon()
        await asyncio.gather(*(runner.task for runner in self.runners.values()), return_exceptions=True)

    async def wait_for_needs(self, doc: AgentDoc, placed: Placed) -> str:
        """Return when every need serves (those in a cycle with it excepted) or the wait is over; what is missing."""
        del placed
        together = self._in_cycle.get(doc.name, frozenset())
        needs = {need.agent for need in doc.agent.need_list() if need.required} - together
        deadline = asyncio.get_running_loop().time() + self._config.needs_wait_s
        while missing := sorted(name for name in needs if not self._serves(name)):
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                return f"{', '.join(missing)} did not serve within {self._config.needs_wait_s:g} s"
        return ""

    def lacks(self, instance: str) -> str:
        """Which required needs of it nobody serves, in words; empty if all are served."""
        return self._lacks(instance)

    def holds_lease(self, instance: str) -> bool:
        """Whether an instance of a singleton holds the lease at this moment."""
        return self._holds_lease(instance)

    def lease_changed(self, instance: str) -> None:
        """It got or lost the lease of its singleton."""
        if runner := self.runners.get(instance):
            runner.lease_changed()

    def processes(self) -> dict[str, WatchedProcess]:
        """Of each instance."""
        return {instance: runner.process for instance, runner in self.runners.items()}

    def tick(self) -> None:
        """Once a second: what no event tells."""
        for runner in self.runners.values():
            runner.process.check_guard()

    def reserved_ports(self, instance: str) -> frozenset[int]:
        """Ports that the host's other instances hold or declare, so that a port moved out of the way takes none."""
        ports: set[int] = set()
        for name, runner in self.runners.items():
            if name != instance:
                ports.update(runner.local.ports.values())
                ports.update(port for port in runner.local.doc.agent.ports.values() if isinstance(port, int))
        return frozenset(ports)

    def _run(self, instance: str, doc: AgentDoc, placed: Placed) -> None:
        kept: Kept | None = self._kept.pop(instance, None)
        runner = Runner(
            doc,
            placed,
            config=self._config,
            supervisor=self._supervisor,
            store=self._store,
            turns=self,
            probes=self._probes,
            changed=self._changed,
            kept=kept,
            adopted=self._adopted.pop(instance, None),
        )
        self.runners[instance] = runner
        runner.task.add_done_callback(lambda task: self._done(instance, task))

    def _changed(self, local: Local) -> None:
        self._changed_cb(local)

    def _done(self, instance: str, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        if error := task.exception():
            # A defect of ours must not leave an instance without a keeper, nor take the shim down.
            log.error("%s: its runner failed and is started again", instance, exc_info=error)
            runner = self.runners[instance]
            self._adopted.update({p.instance: p for p in self._supervisor.adopt() if p.instance == instance})
            self._kept.update({i: k for i, k in self._store.load().items() if i == instance})
            asyncio.get_running_loop().call_later(1.0, self._run, instance, runner.local.doc, runner.local.placed)
            return
        if again := self.runners.pop(instance).wanted:
            self._run(instance, *again)  # it was placed here again while it ended
            return
        self._removed_cb(instance)
