"""One host's shim: its parts, made and wired. Everything runs on one event loop; Consul is called in threads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from outrider.daemon.metrics import Metrics
from outrider.discovery.catalogue import CatalogueWriter
from outrider.discovery.feed import Feed
from outrider.discovery.records import Entry
from outrider.errors import ConsulError
from outrider.fleet.effective import default_probes
from outrider.fleet.spec import Agent
from outrider.host.agent_host import AgentHost
from outrider.host.config import Config
from outrider.host.logs import rotate
from outrider.host.probes import ProbeLoop
from outrider.host.publisher import Publisher, entries_of
from outrider.host.registrar import Registrar
from outrider.host.runner import Probing, Verdict
from outrider.host.state import Local
from outrider.host.supervisor import Supervisor
from outrider.registry.client import connect
from outrider.registry.layout import TAG, service_name
from outrider.registry.services import Service
from outrider.registry.watch import Contact

log = logging.getLogger("outrider.shim")

TICK_S = 1.0
CHECK_PREFIX = "outrider:"


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
            "epoch": "0",
            "host": host,
            "mode": agent.mode,
            "role": local.role,
            "ports": json.dumps(local.ports, sort_keys=True),
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
            on_documents=self._documents_changed,
            on_members=self._members_changed,
            on_contact=self._contact,
        )
        self.publisher = Publisher(self._writer, self._entries)
        self.registrar = Registrar(self.consul, self._executor, config.host, lambda: self.feed.view.critical)
        self.agents = AgentHost(
            config,
            supervisor,
            probes=self._probes,
            changed=self._local_changed,
            removed=self._local_removed,
            serves=self.publisher.serves,
        )
        self.publisher.on_published.append(self.agents.news)
        self.reachable = True
        self.confirmed_at = 0.0
        self._lost_at = 0.0
        self._ticker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take over what runs, then follow Consul."""
        self.agents.start_from_disk()
        self.publisher.publish()
        with contextlib.suppress(ConsulError):
            await asyncio.get_running_loop().run_in_executor(self._executor, lambda: self.consul.version)
        with contextlib.suppress(ConsulError):
            await self.registrar.audit()
        self.registrar.start()
        self.feed.start()
        self._ticker = asyncio.get_running_loop().create_task(self._tick(), name="tick")

    async def stop(self) -> None:
        """End the shim alone: instances run on, stay registered, and the next shim takes them over."""
        if self._ticker:
            self._ticker.cancel()
        await self.agents.abandon()
        await self.registrar.stop()
        await self.feed.stop()
        self._writer.close()
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def shut_down(self) -> None:
        """Take the whole host out: one write drains it, then every instance is stopped and deregistered."""
        log.info("the host is drained and all its %d instances are stopped", len(self.locals))
        with contextlib.suppress(ConsulError):
            await self.registrar.take_host_out("shut down by request")
        await self.agents.stop_all()
        if not await self.registrar.settled(timeout_s=10.0):
            log.warning("not every service could be deregistered: Consul does not answer")
        with contextlib.suppress(ConsulError):
            await self.registrar.put_host_back()
        self._writer.retire()
        self.ended.set()

    def _entries(self) -> dict[str, Entry]:
        return entries_of(self.feed.view, self.locals, self.config.host, self.config.address, self._last)

    def _probes(self, local: Local, agent: Agent, verdict: Verdict) -> Probing:
        return ProbeLoop(
            local.instance,
            agent.probes or default_probes(agent),
            address=self.config.address,
            ports=local.ports,
            heartbeat=self.config.runtime_dir / "beats" / local.instance,
            on_result=verdict,
            on_latency=self.metrics.probe_seconds,
        )

    def _local_changed(self, local: Local) -> None:
        self.locals[local.instance] = local
        self.publisher.publish() if local.status == "critical" else self.publisher.changed()
        self.registrar.want(service_of(local, self.config.host, self.config.address))

    def _local_removed(self, instance: str) -> None:
        self.locals.pop(instance, None)
        self.publisher.changed()
        self.registrar.unwant(instance)

    def _documents_changed(self) -> None:
        view = self.feed.view
        self.agents.apply(view.agents, view.placements)
        self.registrar.complete = True
        self.publisher.changed()

    def _members_changed(self) -> None:
        self.publisher.changed()

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
                if await self.feed.confirm():
                    self.confirmed_at = time.monotonic()
                    self.publisher.confirm()
                    await self.registrar.beat()
            except ConsulError as error:
                log.debug("tick: %s", error.message)
            except Exception:
                # Without this tick the host's check runs out and every instance leaves the routing.
                log.exception("a defect in the tick; the next one follows")
            await asyncio.get_running_loop().run_in_executor(self._executor, rotate, self.config.log_dir)
