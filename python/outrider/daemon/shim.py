"""One host's shim: its parts, made and wired. Everything runs on one event loop; Consul is called in threads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from outrider.calls.tls import client_context
from outrider.daemon.call_listener import CallListener, trusted_users
from outrider.daemon.call_reports import CallReports
from outrider.daemon.fleet_view import instance_reports, local_report
from outrider.daemon.gpu_memory import GpuMemory
from outrider.daemon.history import History
from outrider.daemon.metrics import Metrics
from outrider.daemon.migrating import Migrations
from outrider.daemon.peering import Peering
from outrider.daemon.reconnection import Reconnection
from outrider.daemon.singletons import Singletons
from outrider.daemon.state_copy import pre_copy
from outrider.daemon.targets import SERVICE, Targets, shim_service
from outrider.discovery.catalogue import CatalogueWriter
from outrider.discovery.feed import Feed
from outrider.discovery.records import Entry, Instance
from outrider.errors import ConsulError
from outrider.failover.placer_loop import Placer
from outrider.failover.sight import GOSSIP
from outrider.fleet.effective import default_probes
from outrider.fleet.spec import Agent
from outrider.host.agent_host import AgentHost
from outrider.host.care import Care
from outrider.host.config import Config
from outrider.host.degradation import Degradation, places
from outrider.host.health import Probing, Verdict
from outrider.host.local_ports import LocalPorts
from outrider.host.logs import rotate
from outrider.host.loop_lag import LoopLag
from outrider.host.move_keys import MoveKeys
from outrider.host.probes import ProbeLoop
from outrider.host.publisher import Picture, Publisher, doors, marked, picture_of
from outrider.host.registrar import CHECK_PREFIX, HOST_CHECK, Registrar
from outrider.host.state import Local
from outrider.host.supervisor import Supervisor
from outrider.migration.staged.sight import Copied
from outrider.registry.client import connect
from outrider.registry.layout import TAG, VRAM, Placed, service_name
from outrider.registry.services import Service
from outrider.registry.watch import Contact

log = logging.getLogger("outrider.shim")

TICK_S = 1.0
JOIN_S = 10.0


def service_of(local: Local, host: str, address: str) -> Service:
    """What Consul shall say of an instance. The output is short and steady: every change of it is a write."""
    agent = local.doc.agent
    special = ("model" if agent.model else "", "gpu" if agent.resources.vram_mib else "")
    tags = dict.fromkeys(tag for tag in (TAG, agent.tier, local.role, *special, *agent.tags) if tag)
    status = local.status if local.status in ("passing", "warning") else "critical"
    return Service(
        id=local.instance,
        name=service_name(local.doc.name),
        address=address,
        port=local.main_port,
        tags=tuple(tags),
        meta={
            "agent": local.doc.name,
            "version": local.doc.version,
            "epoch": str(local.epoch),
            "host": host,
            "mode": agent.mode,
            "role": local.role,
            "ports": json.dumps(local.ports, sort_keys=True),
            **({} if local.vram_mib is None else {VRAM: str(local.vram_mib)}),
            "generation": str(local.generation),
        },
        check_id=CHECK_PREFIX + local.instance,
        status=status,
        output=local.detail or local.status,
    )


class Shim:
    """Starts, runs and stops the parts of one host, in this order."""

    def __init__(self, config: Config, supervisor: Supervisor) -> None:
        self.config = config
        self.started = time.time()
        self.locals: dict[str, Local] = {}
        self.ended = asyncio.Event()
        self._executor = ThreadPoolExecutor(max_workers=12, thread_name_prefix="consul")
        self.consul = connect(config.consul.address())
        self._writer = CatalogueWriter(config.runtime_dir)
        self._last: dict[str, Entry] = self._writer.load_last()
        self.metrics = Metrics(self)
        self.feed = Feed(
            self.consul,
            self._executor,
            config.state_dir,
            on_documents=self._documents_changed,
            on_members=self._members_changed,
            on_contact=self._contact,
        )
        self.publisher = Publisher(self._writer, self._picture)
        self.registrar = Registrar(self.consul, self._executor, config.host, lambda: self.feed.view.critical)
        self.peering = Peering(
            config, lambda: self.targets.peers, lambda host: doors(self.feed.view, host), self._peers_changed
        )
        self.move_keys = MoveKeys(
            self.consul,
            self._executor,
            config.host,
            config.runtime_dir,
            placements=lambda: self.feed.view.placements,
            arrived=self._key_arrived,
        )
        self.singletons = Singletons(
            config,
            [config.consul.address(), *config.consul.server_addresses()],
            self.peering.peers,
            lambda: self.feed.view,
            self.locals,
            self._lease_changed,
            lambda: {self.targets.peers.get(host, host) for host in self.reconnection.lost},
            self.move_keys.key_of,
        )
        self.targets = Targets(self.consul, config)
        self.renewals: list[Callable[[], Awaitable[None]]] = []  # called with each tick
        self.agents = AgentHost(
            config,
            supervisor,
            probes=self._probes,
            changed=self._local_changed,
            removed=self._local_removed,
            serves=self.publisher.serves,
            lacks=lambda instance: self.degradation.reasons.get(instance, ""),
            holds_lease=self.singletons.holds_lease,
        )
        self.lag = LoopLag()
        self.care = Care(self.agents.processes, self.lag.late_since)
        self.degradation = Degradation(self._places, self.publisher.serves, self._degraded)
        self.publisher.on_published.append(self.agents.news)
        self.publisher.on_published.append(self.degradation.look)
        self.calls = CallReports(self.locals, lambda: self.publisher.entries, self.publisher.changed)
        self.placer = Placer(
            self.consul,
            self._executor,
            config.host,
            lambda: self.feed.view,
            leases=lambda: self.singletons.leases,
            heard=lambda: self.peering.heard,
            checks=(GOSSIP, HOST_CHECK),
        )
        self.migrations = Migrations(
            self.consul,
            self._executor,
            config,
            self.placer,
            lambda: self.feed.view,
            lambda: self.singletons.leases,
            self._copy_state,
        )
        self.reconnection = Reconnection(
            self.singletons.keeper.ask_again,
            (self.feed.ask_again, self.targets.ask_again, self.migrations.ask_again),
            self._join,
        )
        self.history = History(config.state_dir, config.host, lambda: instance_reports(self), lambda: self.reachable)
        self.publisher.on_published.append(self.history.changed)
        gpu_memory = GpuMemory(self._executor, self.locals, lambda: self.feed.view, self._gpu_memory_changed)
        self.renewals.append(gpu_memory.look)
        self._call_listener: CallListener | None = None
        self.local_ports: LocalPorts | None = None
        self.reachable = True
        self.confirmed_at = 0.0
        self._lost_at = 0.0
        self._ticker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take over what runs, then follow Consul."""
        self.lag.start()
        pids = trusted_users(lambda: [local.pid for local in self.locals.values() if local.pid])
        self._call_listener = CallListener(self.config.runtime_dir, self.calls.take, pids)
        self.singletons.start()
        self.agents.start_from_disk()
        await asyncio.sleep(0)  # what runs is taken over in this turn: a catalogue without it must never be seen
        self.publisher.publish()
        await self.peering.start()
        self.registrar.want(shim_service(self.config))
        with contextlib.suppress(ConsulError):
            await asyncio.get_running_loop().run_in_executor(self._executor, lambda: self.consul.version)
        with contextlib.suppress(ConsulError):
            await self.registrar.audit()
        self.registrar.start()
        self.feed.start()
        self.targets.start()
        if self.config.placer:
            self.placer.start()
            self.migrations.start()
        if self.config.local_ports:
            self.local_ports = LocalPorts(
                self.config.local_ports,
                self.config.runtime_dir / "local-ports.state",
                lambda: self.publisher.entries,
                self.config.host,
            )
            self.publisher.on_published.append(self.local_ports.news)
            self.local_ports.start()
        self.history.start()
        self._ticker = asyncio.get_running_loop().create_task(self._tick(), name="tick")

    async def stop(self) -> None:
        """End the shim alone: instances run on, stay registered, and the next shim takes them over."""
        if self._ticker:
            self._ticker.cancel()
        self.reconnection.stop()
        self.care.stop()
        self.degradation.stop()
        self.lag.stop()
        if self._call_listener:
            self._call_listener.close()
        if self.local_ports:
            await self.local_ports.stop()
        await self.peering.stop()
        await self.migrations.stop()
        await self.placer.stop()
        await self.agents.abandon()
        self.move_keys.stop()
        await self.singletons.stop()
        await self.registrar.stop()
        await self.feed.stop()
        await self.targets.stop()
        self.history.stop()
        self._writer.close()
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def shut_down(self) -> None:
        """Take the whole host out: one write drains it, then every instance is stopped and deregistered."""
        log.info("the host is drained and all its %d instances are stopped", len(self.locals))
        with contextlib.suppress(ConsulError):
            await self.registrar.take_host_out("shut down by request")
        await self.agents.stop_all()
        self.registrar.unwant(SERVICE)
        if not await self.registrar.settled(timeout_s=10.0):
            log.warning("not every service could be deregistered: Consul does not answer")
        with contextlib.suppress(ConsulError):
            await self.registrar.put_host_back()
        self._writer.retire()
        self.ended.set()

    def _picture(self) -> Picture:
        leases = self.singletons.leases
        config = self.config
        lacking, told = self.degradation.reasons.keys(), self.peering.evidence
        picture = picture_of(
            self.feed.view, self.locals, leases, config.host, config.address, self._last, lacking, told
        )
        picture.entries = marked(self.singletons.waited_for(picture.entries, time.monotonic()), self.calls.ill)
        return picture

    async def _copy_state(self, source: Instance, heir: Instance, key: str, timeout_s: float) -> Copied:
        config = self.config
        tls = client_context(config.calls_tls) if config.calls_tls else None
        done = await pre_copy(source, heir, key, config.runtime_dir, tls, timeout_s, config.host)
        return Copied(done.bytes, done.total_bytes, done.seconds)

    def _places(self) -> list[tuple[Agent, Placed]]:
        """Every instance of the fleet, as Consul has it; only those here, until it has answered."""
        view = self.feed.view
        if view.documents_read:
            return places(view.agents, view.placements)
        return [(local.doc.agent, local.placed) for local in self.locals.values()]

    def _degraded(self) -> None:
        for runner in self.agents.runners.values():
            runner.health.needs_changed()
        self.publisher.changed()

    def _probes(self, local: Local, agent: Agent, verdict: Verdict) -> Probing:
        return ProbeLoop(
            local.instance,
            agent.probes or default_probes(agent),
            address=self.config.address,
            ports=local.ports,
            heartbeat=self.config.runtime_dir / "beats" / local.instance,
            agent=local.doc.name,
            runtime=self.config.runtime_dir,
            on_result=verdict,
            on_latency=self.metrics.probe_seconds,
            silences=self.care,
        )

    def _local_changed(self, local: Local) -> None:
        if local.instance not in self.locals:
            self.degradation.documents_changed()
        self.locals[local.instance] = local
        self.peering.tell(local)
        self._follow_key(local)
        self.singletons.follow(local)
        if local.pid is None:
            self.care.died(local.instance)
        self.publisher.publish() if local.status == "critical" else self.publisher.changed()
        self.registrar.want(service_of(local, self.config.host, self.config.address))
        self.history.noticed(local_report(self, local.instance))

    def _local_removed(self, instance: str) -> None:
        self.locals.pop(instance, None)
        self.peering.gone(instance)
        self.singletons.forget(instance)
        self.move_keys.forget(instance)
        self.publisher.changed()
        self.registrar.unwant(instance)

    def _documents_changed(self) -> None:
        view = self.feed.view
        self.degradation.documents_changed()
        self.agents.apply(view.agents, view.placements, whole=view.whole)
        for local in self.locals.values():
            self._follow_key(local)
        self.singletons.follow_all()
        self.registrar.complete = True
        self.publisher.changed()

    def _follow_key(self, local: Local) -> None:
        if self.feed.view.documents_read:
            self.move_keys.follow(local)

    def _key_arrived(self, agent: str) -> None:
        for local in list(self.locals.values()):
            if local.doc.name == agent:
                self._follow_key(local)
                self.singletons.follow(local)

    def _lease_changed(self, local: Local | None) -> None:
        self.publisher.changed()
        if local:
            self.agents.lease_changed(local.instance)
            self.registrar.want(service_of(local, self.config.host, self.config.address))

    def _gpu_memory_changed(self, local: Local) -> None:
        self.registrar.want(service_of(local, self.config.host, self.config.address))

    def _members_changed(self) -> None:
        self.peering.consul_says(self.feed.view.critical)
        self.singletons.members_changed()
        self.publisher.changed()

    def _peers_changed(self) -> None:
        self.reconnection.lost_are(self.peering.evidence.hosts)
        self.publisher.changed()

    async def _join(self, address: str) -> None:
        """Takes as long as Consul's own time-outs: joins do not pile up."""
        ask = partial(self.consul.put, f"/v1/agent/join/{address}", timeout_s=JOIN_S)
        await asyncio.get_running_loop().run_in_executor(self._executor, ask)

    def _contact(self, contact: Contact) -> None:
        """Say it once when Consul goes, and once when it is back."""
        at = f"{self.config.consul.host}:{self.config.consul.port}"
        if contact.ok and contact.known_leader and not self.reachable:
            self.reachable = True
            log.info("Consul at %s answers again after %.1f s", at, time.monotonic() - self._lost_at)
        elif not contact.ok and self.reachable:
            self.reachable = False
            self._lost_at = time.monotonic()
            log.warning("Consul at %s does not answer (%s): instances run on, lookups are served from the last "
                        "catalogue and say its age", at, contact.error)  # fmt: skip

    async def _tick(self) -> None:
        """Once a second: is what we know still true, does Consul know that we live, are the logs small."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self.calls.tick()
                self.history.tick()
                if self.singletons.tick():
                    self.publisher.changed()
                self.agents.tick()
                for renew in self.renewals:
                    await renew()
                reached = await self.feed.confirm()
                known = self.targets.peers
                self.reconnection.reached(reached, (known[host] for host in self.peering.heard if host in known))
                if reached:
                    self.confirmed_at = time.monotonic()
                    self.publisher.confirm()
                    await self.registrar.beat()
                    await self.registrar.correct()
            except ConsulError as error:
                log.debug("tick: %s", error.message)
            except Exception:
                # Without this tick the host's check runs out and every instance leaves the routing.
                log.exception("a defect in the tick; the next one follows")
            await asyncio.get_running_loop().run_in_executor(self._executor, rotate, self.config.log_dir)
