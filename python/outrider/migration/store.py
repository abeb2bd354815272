"""The documents and the health of a fleet in Consul, as a rollout needs them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from outrider.errors import ConsulError
from outrider.migration.changes import Documents
from outrider.registry.client import Consul
from outrider.registry.kv import TXN_OPS, Change, Docs, list_docs, put_docs
from outrider.registry.layout import FLEET, PLACEMENT, AgentDoc, PlacementDoc
from outrider.registry.lock import RunLock
from outrider.registry.services import critical, local_services, node_services

MIN_GAP_S = 0.1
MAX_TXN_BYTES = 256 * 1024  # of documents; base64 makes them a third larger, and Consul takes half a MiB


class Seen(Struct, frozen=True):
    """What Consul says of one instance. `well_s`: for how long it has served at this version, as the rollout saw it."""

    host: str
    version: str
    status: str
    output: str
    well_s: float = 0.0


Sight = Mapping[tuple[str, str], Seen]
"""By instance and host: while an instance moves, Consul may know it on two."""


class ConsulStore:
    """Reads and writes by check-and-set: a write fits the last read, or fails as a whole."""

    def __init__(self, consul: Consul, lock: RunLock | None = None) -> None:
        self._consul = consul
        self._lock = lock
        self._indexes: dict[str, int] = {}
        self._health_index = 0
        self.docs: dict[str, Documents] = {}

    def read(self) -> dict[str, Documents]:
        """Both documents of every agent. Raises ConsulError, also for one that is malformed."""
        # A list leaves out what the token may not read; a single key is refused. Without this, nothing looks like none.
        for prefix in (FLEET, PLACEMENT):
            self._consul.get(f"/v1/kv/{prefix}")
        agents = list_docs(self._consul, FLEET, AgentDoc)
        placements = list_docs(self._consul, PLACEMENT, PlacementDoc)
        _refuse_malformed(agents, placements)
        self._indexes = {FLEET + name: index for name, (_, index) in agents.docs.items()}
        self._indexes |= {PLACEMENT + name: index for name, (_, index) in placements.docs.items()}
        nothing = (None, 0)
        self.docs = {
            name: Documents(agents.docs.get(name, nothing)[0], placements.docs.get(name, nothing)[0])
            for name in sorted(agents.docs.keys() | placements.docs.keys())
        }
        return self.docs

    def write(self, wanted: Mapping[str, Documents]) -> None:
        """Both documents of an agent in one transaction. Raises ConsulConflict, Locked, ConsulError."""
        if self._lock:
            self._lock.check()
        groups = [list(self._changes(name, docs)) for name, docs in wanted.items()]
        for chunk in _chunks([group for group in groups if group]):
            put_docs(self._consul, chunk)

    def _changes(self, name: str, docs: Documents) -> Iterator[Change]:
        before = self.docs.get(name, Documents())
        if docs.agent != before.agent:
            yield Change(FLEET + name, docs.agent, self._indexes.get(FLEET + name, 0))
        if docs.placement != before.placement:
            yield Change(PLACEMENT + name, docs.placement, self._indexes.get(PLACEMENT + name, 0))

    def observe(self, hosts: Iterable[str]) -> dict[tuple[str, str], Seen]:
        """Every instance that Consul knows on `hosts`. A host whose own check fails takes its instances along."""
        reply = self._consul.get("/v1/health/state/any")
        self._health_index = reply.index
        checks, down = {}, {}
        for check in critical(reply):
            if check.service_id:
                checks[check.service_id, check.node] = check
            elif check.status == "critical":
                down[check.node] = f"the host: {check.check_id} is critical: {check.output}"
        seen = {}
        for host in sorted(set(hosts)):
            for service in node_services(self._consul, host):
                found = checks.get((service.id, host))
                status, output = (found.status, found.output) if found else ("critical", "has no check in Consul")
                if host in down:
                    status, output = "critical", down[host]
                seen[service.id, host] = Seen(host, service.meta.get("version", ""), status, output.strip())
        return seen

    def output(self, instance: str, host: str) -> str:
        """What its check says this moment; empty if the Consul agent that we ask is not its own.

        The catalog may be minutes behind: while a check's status stays the same, Consul sends a new output only every
        `check_update_interval`, five minutes by default.
        """
        found = local_services(self._consul).get(instance)
        return found.output.strip() if found and found.meta.get("host") == host else ""

    def wait(self, longest_s: float) -> None:
        """Return when a check's state changed, or after `longest_s`; never faster than every 100 ms."""
        time.sleep(MIN_GAP_S)
        self._consul.get("/v1/health/state/any", index=self._health_index, wait_s=longest_s)


def _refuse_malformed(*read: Docs[Any]) -> None:
    problems = [problem for docs in read for problem in docs.problems]
    if problems:
        hint = "mend or delete them in the Consul UI, Key/Value; nothing was changed"
        raise ConsulError("these documents cannot be read: " + "; ".join(problems), hint=hint)


def _chunks(groups: Sequence[list[Change]]) -> Iterator[list[Change]]:
    """Changes for whole transactions, so that no group, the two documents of an agent, is torn apart."""
    chunk: list[Change] = []
    size = 0
    for group in groups:
        weight = sum(len(msgspec.json.encode(change.doc)) for change in group)
        if chunk and (len(chunk) + len(group) > TXN_OPS or size + weight > MAX_TXN_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk += group
        size += weight
    if chunk:
        yield chunk
