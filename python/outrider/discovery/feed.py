"""What Consul knows of the fleet, kept fresh: documents, membership and failures.

Five blocking queries feed it however big the fleet is: the prefixes of documents, a slow one for membership
(`catalog/services` wakes, then one read per host) and a fast one for failures (`health/state/critical`: two bytes at
rest, woken in 4 ms; a watch on one big service took 172 ms and 2 MB at 2,000 instances). Callbacks run on the event
loop; everything that blocks runs in threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TypeVar

from msgspec import Struct, field

from outrider.discovery.absence import Publications, joined
from outrider.errors import ConsulError
from outrider.registry import kv, services
from outrider.registry.client import Consul, Reply
from outrider.registry.layout import FLEET, HOSTS, PLACEMENT, AgentDoc, HostDoc, PlacementDoc
from outrider.registry.published import number_in
from outrider.registry.services import CheckState, Service
from outrider.registry.watch import Contact, Watch

T = TypeVar("T")
log = logging.getLogger("outrider.feed")

CRITICAL_PATH = "/v1/health/state/critical"
# Newer Consul feeds health watches from followers (75 ms later) unless the query is sorted by distance.
CRITICAL_PARAMS = {"near": "_agent"}
SETTLE_S = 0.1
REREAD_S = 30.0


class View(Struct):
    """The fleet as last read from Consul. `members`: node to its services; `critical`: checks that are critical now.

    hosts: what the inventory and operators say of each; nodes: those that the catalog has
    whole: every document is there, so what has none was removed
    """

    agents: dict[str, AgentDoc]
    placements: dict[str, PlacementDoc]
    members: dict[str, tuple[Service, ...]]
    critical: tuple[CheckState, ...] = ()
    documents_read: bool = False
    hosts: dict[str, HostDoc] = field(default_factory=dict)
    nodes: frozenset[str] = frozenset()
    whole: bool = False


class Feed:
    """Keeps a View fresh and calls `on_documents`, `on_members` and `on_contact` on the event loop when it changes."""

    def __init__(
        self,
        consul: Consul,
        executor: Executor,
        state_dir: Path,
        *,
        on_documents: Callable[[], None],
        on_members: Callable[[], None],
        on_contact: Callable[[Contact], None],
    ) -> None:
        self.view = View({}, {}, {})
        self._consul = consul
        self._executor = executor
        self._on_documents = on_documents
        self._on_members = on_members
        self._on_contact = on_contact
        self._loop = asyncio.get_running_loop()
        self._publications = Publications(state_dir)
        self._agents: dict[str, AgentDoc] | None = None
        self._placements: dict[str, PlacementDoc] | None = None
        self._hosts: dict[str, HostDoc] = {}
        self._whole = False
        self.documents_lost = False
        self._members_stale = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._watches = [
            self._watch(f"/v1/kv/{FLEET}", {"recurse": ""}, self._fleet_changed),
            self._watch(f"/v1/kv/{PLACEMENT}", {"recurse": ""}, self._placement_changed),
            self._watch(f"/v1/kv/{HOSTS}", {"recurse": ""}, self._hosts_changed),
            self._watch(CRITICAL_PATH, CRITICAL_PARAMS, self._critical_changed),
            # It lists names and tags: one more instance of a service shows in its index alone.
            self._watch("/v1/catalog/services", {}, lambda _: self._members_stale.set(), by_index=True),
        ]

    def start(self) -> None:
        """Start the watches; the first callbacks follow as soon as Consul answers."""
        for watch in self._watches:
            watch.start()
        self._tasks.append(self._loop.create_task(self._keep_members(), name="feed members"))

    def ask_again(self) -> None:
        """A host was lost, maybe the one that was to answer."""
        for watch in self._watches:
            watch.ask_again()

    async def stop(self) -> None:
        """Stop every watch and wait for its thread."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(asyncio.to_thread(watch.stop) for watch in self._watches))

    async def confirm(self) -> bool:
        """Ask once, without waiting, whether the failures known here are still all. True if the leader answered.

        A blocking query that hangs on a lost leader looks like one at rest: only a fresh answer makes the age truthful.
        """
        try:
            reply = await self._thread(lambda: self._consul.get(CRITICAL_PATH, params=CRITICAL_PARAMS, timeout_s=1.0))
        except ConsulError as error:
            self._on_contact(Contact(ok=False, known_leader=False, error=error.message, at=time.monotonic()))
            return False
        self._critical_changed(reply)
        self._on_contact(Contact(ok=True, known_leader=reply.known_leader, error="", at=time.monotonic()))
        return reply.known_leader

    def _watch(
        self, path: str, params: Mapping[str, str], on_change: Callable[[Reply], None], *, by_index: bool = False
    ) -> Watch:
        def in_loop(reply: Reply) -> None:
            self._loop.call_soon_threadsafe(on_change, reply)

        def contact(contact: Contact) -> None:
            self._loop.call_soon_threadsafe(self._on_contact, contact)

        return Watch(
            self._consul, path, params=params, on_change=in_loop, on_contact=contact, name=path, by_index=by_index
        )

    def _fleet_changed(self, reply: Reply) -> None:
        docs = kv.decode_docs(reply, FLEET, AgentDoc)
        self._report(docs.problems)
        self._agents = {doc.name: doc for doc, _ in docs.docs.values()}
        self._documents_changed()

    def _placement_changed(self, reply: Reply) -> None:
        docs = kv.decode_docs(reply, PLACEMENT, PlacementDoc)
        self._report(docs.problems)
        self._placements = {doc.agent: doc for doc, _ in docs.docs.values()}
        # One that cannot be read is there.
        self._whole = self._publications.removed_the_absent(number_in(reply)) and not docs.problems
        self._documents_changed()

    def _hosts_changed(self, reply: Reply) -> None:
        docs = kv.decode_docs(reply, HOSTS, HostDoc)
        self._report(docs.problems)
        self._hosts = {name: doc for name, (doc, _) in docs.docs.items()}
        self._join_hosts()
        self._members_stale.set()
        self._on_members()

    def _join_hosts(self) -> None:
        """A host without a document was taken out of the inventory, unless Consul lost it.

        They are read apart from the number of the publication; that all have gone while something is placed is a loss.
        """
        view, hosts = self.view, self._hosts
        removed = self._whole and (hosts or not view.placements)
        view.hosts = dict(hosts) if removed else {**view.hosts, **hosts}

    def _documents_changed(self) -> None:
        """Pass both kinds on, unless one is missing altogether and this shim knows of nothing else yet."""
        view, agents, placements = self.view, self._agents, self._placements
        if agents is None or placements is None:
            return
        known = (view.agents, view.placements)
        found = joined(known, (agents, placements), whole=self._whole)
        nothing = not (agents and placements)
        lost = not self._whole and (nothing or found[1].keys() > placements.keys())
        if lost and not self.documents_lost and view.documents_read:
            log.warning(
                "Consul lost documents of the fleet: what runs without them runs on until it is published again"
            )
        self.documents_lost = lost
        if lost and nothing and not view.documents_read:
            return
        view.agents, view.placements = found
        view.documents_read, view.whole = True, self._whole
        self._join_hosts()
        self._members_stale.set()
        self._on_documents()

    def _critical_changed(self, reply: Reply) -> None:
        critical = tuple(services.critical(reply))
        if critical != self.view.critical:
            self.view.critical = critical
            self._on_members()

    def hosts(self) -> set[str]:
        """Hosts that are described, or that any placement names."""
        return self.view.hosts.keys() | {p.host for doc in self.view.placements.values() for p in doc.instances}

    async def _keep_members(self) -> None:
        """Read the hosts' services whenever something was registered, and every 30 s in case a wake-up was lost."""
        while True:
            try:
                async with asyncio.timeout(REREAD_S):
                    await self._members_stale.wait()
            except TimeoutError:
                pass
            self._members_stale.clear()
            try:
                await self._read_members()
            except ConsulError as error:
                self._on_contact(Contact(ok=False, known_leader=False, error=error.message, at=time.monotonic()))
            except Exception:
                log.exception("a defect while reading the hosts' services; they are read again")
            # Registrations come in bursts; one read serves all that fall into this window.
            await asyncio.sleep(SETTLE_S)

    async def _read_members(self) -> None:
        members: dict[str, tuple[Service, ...]] = {}
        for host in sorted(self.hosts()):
            members[host] = tuple(await self._thread(partial(services.node_services, self._consul, host)))
        nodes = await self._thread(partial(services.nodes, self._consul))
        if (members, nodes) != (self.view.members, self.view.nodes):
            self.view.members, self.view.nodes = members, nodes
            self._on_members()

    async def _thread(self, call: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._executor, call)

    def _report(self, problems: Sequence[str]) -> None:
        for problem in problems:
            log.warning("a document in Consul is not readable and is ignored: %s", problem)
