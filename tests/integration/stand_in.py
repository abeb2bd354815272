"""A stand-in for the shim of one host: it obeys documents, registers services, and remembers what it did."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from msgspec import Struct

from outrider.errors import ConsulError
from outrider.registry import services
from outrider.registry.client import Consul
from outrider.registry.kv import list_docs
from outrider.registry.layout import FLEET, PLACEMENT, AgentDoc, Placed, PlacementDoc, service_name
from outrider.registry.services import Service

POLL_S = 0.03


class Event(Struct, frozen=True):
    """Something the stand-in did: started, stopped, ended."""

    what: str
    instance: str
    version: str


class StandIn:
    """Runs nothing. An agent with BROKEN in its environment never gets well."""

    def __init__(self, consul: Consul, host: str) -> None:
        self._consul = consul
        self._host = host
        self._running: dict[str, tuple[AgentDoc, Placed]] = {}
        self._done = threading.Event()
        self.most_down = 0
        self.events: list[Event] = []

    def of(self, what: str) -> list[str]:
        """Instances in the order in which that happened to them."""
        return [event.instance for event in self.events if event.what == what]

    def placed(self) -> set[str]:
        """Instances that it has registered."""
        return set(self._running)

    @contextlib.contextmanager
    def running(self) -> Iterator[StandIn]:
        """Obey until the block ends."""
        thread = threading.Thread(target=self._obey, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._done.set()
            thread.join()

    def _obey(self) -> None:
        while not self._done.wait(POLL_S):
            with contextlib.suppress(ConsulError):
                self._converge()

    def _converge(self) -> None:
        agents = list_docs(self._consul, FLEET, AgentDoc).docs
        placements = list_docs(self._consul, PLACEMENT, PlacementDoc).docs
        wanted = {
            placed.instance: (agents[name][0], placed)
            for name, (placement, _) in placements.items()
            if name in agents
            for placed in placement.instances
            if placed.host == self._host
        }
        for instance in self._running.keys() - wanted.keys():
            self._note("ended", instance, self._running.pop(instance)[1].version)
            services.deregister(self._consul, instance)
        for instance, (doc, placed) in wanted.items():
            self._tell(instance, doc, placed)

    def _tell(self, instance: str, doc: AgentDoc, placed: Placed) -> None:
        now = self._running.get(instance)
        if now and doc.version != placed.version == now[0].version:
            doc = now[0]  # the rollout has not reached this instance yet
        if now == (doc, placed):
            return
        if placed.state == "stopped":
            self._note("stopped", instance, placed.version)
            self._register(instance, doc, "critical", "stopped: by request")
        elif now is None or now[0].version != doc.version or now[1].state == "stopped":
            self._note("started", instance, doc.version)
            broken = "BROKEN" in doc.agent.environment
            self._register(instance, doc, "critical", "starting")
            if now:
                self._count_down()
            self._register(instance, doc, *(("critical", "exited: status 3") if broken else ("passing", "ok")))
        else:
            self._register(instance, doc, "passing", "ok")
        self._running[instance] = (doc, placed)

    def _register(self, instance: str, doc: AgentDoc, status: str, output: str) -> None:
        meta = {"agent": doc.name, "version": doc.version, "host": self._host}
        tags = ("outrider", *doc.agent.tags)
        check = f"outrider:{instance}"
        name = service_name(doc.name)
        services.register(self._consul, Service(instance, name, "127.0.0.1", 1, tags, meta, check, status))
        services.set_check(self._consul, check, status, output)

    def _count_down(self) -> None:
        """How many instances of one agent are not passing, at most, at any time."""
        checks = services.critical(self._consul.get("/v1/health/state/critical"))
        names = [check.service_name for check in checks]
        self.most_down = max([self.most_down, *(names.count(name) for name in names)])

    def _note(self, what: str, instance: str, version: str) -> None:
        self.events.append(Event(what, instance, version))
