"""The leases of this host's singletons: taken, extended, given up. When that may be, say the rules in rules.py."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Container, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from outrider.discovery.lease_file import FOREVER_NS, LeaseWriter, lease_path
from outrider.errors import ConsulConflict, ConsulError
from outrider.failover.lease_view import LeaseView
from outrider.failover.rules import LEASE_S, PROMISE_S, Candidate, may_promise, take_at, taken
from outrider.failover.session import HostSession
from outrider.registry import leases
from outrider.registry.client import Consul
from outrider.registry.kv import get_doc
from outrider.registry.layout import PLACEMENT, Handover, PlacementDoc
from outrider.registry.leases import Lease, LeaseDoc, Member

T = TypeVar("T")
log = logging.getLogger("outrider.lease")

RETRY_S = 0.1  # after somebody was quicker, or the lock delay is not over
TROUBLE_S = 0.25  # after Consul did not answer


class Held(Struct):
    """A lease that an instance of this host holds. Times are monotonic seconds.

    confirmed_at: when the last question was sent that found the lock to be ours
    until: end of the lease, infinity for a sole holder
    """

    instance: str
    doc: LeaseDoc
    session: str
    confirmed_at: float
    until: float = -math.inf


class LeaseKeeper:
    """Of one host. All methods run on the event loop.

    `changed` is called with an instance that got or lost its lease, and with "" when others did.
    """

    def __init__(
        self, consul: Consul, *, host: str, runtime_dir: Path, state_dir: Path, changed: Callable[[str], None]
    ) -> None:
        self.held: dict[str, Held] = {}
        self.candidates: dict[str, Candidate] = {}
        # Not the shim's threads: those may all wait for a leader that is frozen.
        self.executor = ThreadPoolExecutor(max_workers=6, thread_name_prefix="leases")
        self.session = HostSession(consul, self.executor, host, state_dir, self._consider_all)
        self._consul = consul
        self._host = host
        self._runtime = runtime_dir
        self._changed = changed
        self._of_agent: dict[str, list[Candidate]] = {}
        self._view = LeaseView(consul, self.executor, state_dir, self._followed)
        self._files: dict[str, LeaseWriter] = {}
        self._promises: dict[str, float] = {}
        self._busy: Counter[str] = Counter()
        self._stopping: dict[str, asyncio.Event] = {}
        self._not_before: dict[str, float] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def leases(self) -> Mapping[str, Lease]:
        """Every lease of the fleet."""
        return self._view.leases

    def start(self) -> None:
        """Follow the leases and keep a session."""
        self._view.start()
        self.session.start()

    def ask_again(self) -> None:
        """A host was lost, maybe the one that was to tell how the leases are."""
        self._view.ask_again()

    async def stop(self) -> None:
        """Leave everything as it is: what is held stays held, and the next shim takes it over."""
        self.session.stop()
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await self._view.stop()
        self.executor.shutdown(wait=False, cancel_futures=True)

    def want(
        self,
        agent: str,
        instance: str,
        members: tuple[Member, ...],
        hosts: frozenset[str],
        *,
        sole: bool,
        ready: bool,
        handover: Handover | None = None,
        reserve: bool = False,
        moving: bool = False,
    ) -> None:
        """An instance of a singleton is here; it may hold the lease while it is `ready`. `hosts`: of the inventory."""
        candidate = self.candidates.get(instance)
        if candidate is None:
            candidate = Candidate(agent, instance, self._host, members)
            candidate.known = self._view.last(agent)
            candidate.free_since = time.monotonic() if self._view.is_free(agent) else None
            self.candidates[instance] = candidate
            self._of_agent.setdefault(agent, []).append(candidate)
        candidate.members, candidate.hosts, candidate.sole, candidate.ready = members, hosts, sole, ready
        candidate.handover, candidate.reserve, candidate.moving = handover, reserve, moving
        self._follow_members(agent)
        self._consider(agent)

    def forget(self, instance: str) -> None:
        """It is no longer here."""
        candidate = self.candidates.pop(instance, None)
        if candidate:
            self._of_agent[candidate.agent].remove(candidate)
            self.give_up(candidate.agent, instance, "no longer placed here")
        if file := self._files.pop(instance, None):
            file.end()
            file.close()
            lease_path(self._runtime, instance).unlink(missing_ok=True)

    def close(self, agent: str, instance: str) -> None:
        """Its process is being stopped: it finishes what it works on and takes nothing new."""
        if self._holds(agent, instance):
            self.file(instance).close_to_new()

    def reopen(self, agent: str, instance: str) -> None:
        """It is not stopped, nor does it hand over its lease: it takes new work again."""
        if self._holds(agent, instance):
            self.file(instance).reopen()

    def give_up(
        self, agent: str, instance: str, reason: str, *, after_s: float = 0.0, heir: Member | None = None
    ) -> None:
        """End its lease now, and let others have it `after_s` later, or when this is called without that wait.

        heir: whom it is handed over to
        """
        held = self.held.get(agent)
        if held is None or held.instance != instance:
            if not after_s and instance in self._stopping:
                self._stopping[instance].set()
            return
        del self.held[agent]
        self.file(instance).end()
        if candidate := self.candidates.get(instance):
            candidate.own_until = -math.inf
        self._changed(instance)
        self._run(agent, self._release(held, reason, after_s, heir))

    def lost(self, agent: str, reason: str) -> None:
        """The lease is over, and was not given up."""
        held = self.held.pop(agent)
        log.warning("%s holds the lease of %s no longer: %s", held.instance, agent, reason)
        self.file(held.instance).end()
        if candidate := self.candidates.get(held.instance):
            candidate.own_until = held.until if held.until < math.inf else time.monotonic()
        self._changed(held.instance)
        self._consider(agent)

    def unlocked(self, agent: str, reason: str) -> None:
        """Consul says that the lock is not ours: the lease is over, unless nobody else may take it."""
        if not self.held[agent].doc.sole:
            self.lost(agent, reason)
        elif not self._busy[agent]:
            log.warning("%s is locked again: %s", agent, reason)
            self._run(agent, self._lock_again(self.held[agent]))

    def confirmed(self, agent: str, sent: float) -> None:
        """What was sent to Consul at that time found the lock to be ours."""
        held = self.held[agent]
        held.confirmed_at = sent
        self._grant(held, sent)

    def allowed(self, agent: str, sent: float) -> None:
        """What was sent to all other members at that time was answered with their promises."""
        self._grant(self.held[agent], sent)

    def promise(self, agent: str, holder: str, epoch: int, now: float) -> bool:
        """Let the holder of that epoch go on without Consul: nobody here takes the lease until it has ended."""
        ours = self._of_agent.get(agent, [])
        lease, taking = self.leases.get(agent), self._busy[agent] > 0 or agent in self.held
        if not all(may_promise(c, lease, holder, epoch, now, taking=taking) for c in (*ours, None)):
            return False
        self._promises[agent] = now + PROMISE_S
        for candidate in ours:
            candidate.promised_until = now + PROMISE_S
        self._consider(agent)
        return True

    def epoch(self, instance: str) -> int:
        """The epoch that an instance of this host holds; 0 if it holds none."""
        return next((held.doc.epoch for held in self.held.values() if held.instance == instance), 0)

    def file(self, instance: str) -> LeaseWriter:
        """What the instance's process reads. Made before the process starts."""
        if instance not in self._files:
            self._files[instance] = LeaseWriter(lease_path(self._runtime, instance))
        return self._files[instance]

    def tick(self) -> None:
        """Once a second: what no event tells."""
        for agent in list(self.held):
            self._follow_members(agent)
        self._consider_all()

    def release_orphans(self, present: Container[str]) -> None:
        """Give up what this host holds for instances that it has no longer: an earlier shim took it for them."""
        for agent, lease in list(self.leases.items()):
            ours = bool(lease.session) and lease.session == self.session.id
            if ours and lease.doc.holder not in present and agent not in self.held and not self._busy[agent]:
                orphan = Held(lease.doc.holder, lease.doc, lease.session, -math.inf)
                self._run(agent, self._release(orphan, "its holder is no longer placed here", 0.0))

    def _holds(self, agent: str, instance: str) -> bool:
        held = self.held.get(agent)
        return held is not None and held.instance == instance

    def _follow_members(self, agent: str) -> None:
        """Write down those of the placement, if they are not those of the lease."""
        held = self.held.get(agent)
        candidate = self.candidates.get(held.instance) if held else None
        if held is None or candidate is None or self._busy[agent]:
            return
        wanted = candidate.members, candidate.sole
        if wanted != (held.doc.members, held.doc.sole):
            self._run(agent, self._amend(held, *wanted))

    def _followed(self) -> None:
        self._note_free()
        self._changed("")
        self._consider_all()

    def _note_free(self) -> None:
        now = time.monotonic()
        for candidate in self.candidates.values():
            if not self._view.is_free(candidate.agent):
                candidate.free_since = None
            elif candidate.free_since is None:
                candidate.free_since = now
            lease = self.leases.get(candidate.agent)
            if lease and lease.doc.epoch >= candidate.seen_epoch:
                candidate.known = lease.doc

    def _consider_all(self) -> None:
        for agent in self._of_agent:
            self._consider(agent)

    def _consider(self, agent: str) -> None:
        """Whether something is to be done about a lease now, or later."""
        if self._busy[agent] or agent in self.held or not self._view.read or not self.session.id:
            return
        lease = self.leases.get(agent)
        for candidate in self._of_agent.get(agent, ()):
            candidate.promised_until = max(candidate.promised_until, self._promises.get(agent, -math.inf))
            if lease and lease.session == self.session.id and _names(lease.doc, candidate):
                if candidate.ready and self._not_before.get(agent, 0.0) <= time.monotonic():
                    self._run(agent, self._resume(candidate, lease))
                elif candidate.ready:
                    self._wake_at(agent, self._not_before[agent])
                return
            at = max(take_at(candidate, lease), self._not_before.get(agent, -math.inf))
            if at <= time.monotonic():
                self._run(agent, self._take(candidate, lease))
                return
            if at < math.inf:
                self._wake_at(agent, at)

    async def _take(self, candidate: Candidate, lease: Lease | None) -> None:
        agent, session = candidate.agent, self.session.id
        doc = taken(candidate, lease, time.time())

        sent = time.monotonic()
        try:
            index = await self._thread(lambda: self._locked(doc, lease, session, candidate))
        except ConsulConflict as error:
            log.debug("%s: %s", candidate.instance, error.message)
            self._not_before[agent] = time.monotonic() + RETRY_S
        except ConsulError as error:
            log.debug("%s: %s", candidate.instance, error.message)
            self._not_before[agent] = time.monotonic() + TROUBLE_S
        else:
            self._granted(candidate, Lease(doc, index, session), sent)

    def _locked(self, doc: LeaseDoc, lease: Lease | None, session: str, taker: Candidate | None = None) -> int:
        """Lock the key with `doc`, in a thread; the new index. Raises ConsulError."""
        if lease is None and not leases.is_placed(self._consul, doc.agent):
            # Consul lost its data, and may be about to be restored: a lease that is taken meanwhile would not last.
            raise ConsulConflict(f"{doc.agent} is placed nowhere: Consul has lost the fleet")
        asked = 0
        if taker and taker.reserve and lease and lease.doc.heir:
            asked = self._asked(doc.agent, lease.doc.heir, lease.doc.epoch)
        elif taker and taker.moving and not taker.reserve:
            asked = self._allowed(taker)
        try:
            index = leases.acquire(self._consul, doc, lease.index if lease else 0, session, placement_index=asked)
        except ConsulError as error:
            if "invalid session" in error.message:
                self._loop.call_soon_threadsafe(self.session.ended, session)
            raise
        self._view.remember([doc])
        return index

    async def _resume(self, candidate: Candidate, lease: Lease) -> None:
        """The lock is ours already: an earlier shim took it, or Consul's answer to us was lost."""
        sent, session = time.monotonic(), lease.session
        try:
            found = await self._thread(lambda: leases.confirm(self._consul, [candidate.agent], session, timeout_s=1.0))
        except ConsulError as error:
            log.debug("%s: %s", candidate.instance, error.message)
            self._not_before[candidate.agent] = time.monotonic() + TROUBLE_S
            return
        if candidate.agent in found.held:
            self._granted(candidate, lease, sent)
        else:
            self._not_before[candidate.agent] = time.monotonic() + TROUBLE_S  # the watch tells more soon

    def _granted(self, candidate: Candidate, lease: Lease, sent: float) -> None:
        agent, doc = candidate.agent, lease.doc
        self._view.wrote(lease)
        candidate.free_since = None
        candidate.known = doc
        held = self.held[agent] = Held(candidate.instance, doc, lease.session, sent)
        if self.candidates.get(candidate.instance) is not candidate or not candidate.ready:
            self._loop.call_soon(self.give_up, agent, candidate.instance, "it is not well any more")
            return
        # An earlier shim may have died while it passed this lease on; one that is being stopped is not ready.
        self.file(candidate.instance).reopen()
        self._grant(held, sent)
        log.info("%s holds the lease of %s, epoch %d: %s", candidate.instance, agent, doc.epoch, doc.reason)
        self._changed(candidate.instance)

    async def _lock_again(self, held: Held) -> None:
        """A sole holder whose session ended works on: no other host takes its lease, and its epoch stays."""
        agent = held.doc.agent
        while self.held.get(agent) is held:
            lease, session = self.leases.get(agent), self.session.id
            if lease and lease.doc.epoch > held.doc.epoch:
                self.lost(agent, f"{lease.doc.holder} on {lease.doc.host} has it")
                return
            if not session:
                await asyncio.sleep(TROUBLE_S)  # one is being made
                continue
            try:
                index = await self._thread(partial(self._locked, held.doc, lease, session))
            except ConsulError as error:
                log.debug("%s: %s", held.instance, error.message)
                await asyncio.sleep(TROUBLE_S)
                continue
            held.session = session
            self._view.wrote(Lease(held.doc, index, session))
            return

    async def _release(self, held: Held, reason: str, after_s: float, heir: Member | None = None) -> None:
        """Until Consul has heard it, or knows better."""
        if after_s:
            stopped = self._stopping[held.instance] = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(after_s):
                    await stopped.wait()
            del self._stopping[held.instance]
        doc = replace(held.doc, state="released", reason=reason, since=time.time(), heir=heir)
        while True:
            try:
                index = await self._thread(lambda: self._released(doc, held.session))
            except ConsulConflict as error:
                # Not ours any more, or not wanted any more: in the latter case it is simply held on.
                log.info("%s does not pass on the lease of %s: %s", held.instance, doc.agent, error.message)
                return
            except ConsulError as error:
                log.warning("the lease of %s cannot be released: %s", doc.agent, error.message)
                await asyncio.sleep(TROUBLE_S)
                continue
            log.info("%s gave up the lease of %s: %s", held.instance, doc.agent, reason)
            self._view.wrote(Lease(doc, index))
            self._note_free()
            self._changed("")
            return

    def _released(self, doc: LeaseDoc, session: str) -> int:
        """Give it up in Consul, in a thread; the new index. Raises ConsulError."""
        asked = self._asked(doc.agent, doc.heir, doc.epoch) if doc.heir else 0
        return leases.release(self._consul, doc, session, placement_index=asked)

    def _asked(self, agent: str, heir: Member, epoch: int) -> int:
        """The index of the placement that asks for a hand-over, in a thread. Raises ConsulConflict if it does not.

        A lease passes, and an heir with its state takes it, only in one transaction with that: a hand-over that was
        called off may be carried out late, and whoever called it off counts on it that it is not.
        """
        placement, index = get_doc(self._consul, PLACEMENT + agent, PlacementDoc)
        if placement is None or placement.handover != Handover(heir.instance, heir.host, epoch):
            raise ConsulConflict(f"the placement of {agent} asks for no such hand-over any more")
        return index

    def _allowed(self, candidate: Candidate) -> int:
        """The index of a placement that lets it take the lease, in a thread. Raises ConsulConflict if it does not.

        Which of two states counts may have been decided while this host was cut off and knew nothing of it.
        """
        placement, index = get_doc(self._consul, PLACEMENT + candidate.agent, PlacementDoc)
        here = (candidate.instance, candidate.host)
        found = [p for p in (placement.instances if placement else ()) if (p.instance, p.host) == here]
        if not found or found[0].reserve:
            raise ConsulConflict(f"the placement of {candidate.agent} does not let {candidate.instance} take the lease")
        return index

    async def _amend(self, held: Held, members: tuple[Member, ...], sole: bool) -> None:
        """Write down who may hold the lease now. Until that is done, a new member may not take it."""
        doc = replace(held.doc, members=members, sole=sole)
        # All of both must agree until it is certain which are written.
        held.doc = replace(held.doc, members=(*held.doc.members, *(m for m in members if m not in held.doc.members)))
        sent = time.monotonic()
        try:
            known = self.leases.get(doc.agent)
            index = await self._thread(
                lambda: leases.amend(self._consul, doc, known.index if known else 0, held.session)
            )
        except ConsulError as error:
            log.debug("the members of %s: %s", doc.agent, error.message)
            return
        if self.held.get(doc.agent) is held:
            held.doc = doc
            self._view.wrote(Lease(doc, index, held.session))
            self._grant(held, sent)
            self._changed(held.instance)

    def _grant(self, held: Held, sent: float) -> None:
        """The lock was ours when this was sent: the process may work for one lease length from then."""
        held.until = math.inf if held.doc.sole else sent + LEASE_S
        if candidate := self.candidates.get(held.instance):
            candidate.own_until = held.until
        self.file(held.instance).grant(held.doc.epoch, FOREVER_NS if held.doc.sole else int(held.until * 1e9))

    def _run(self, agent: str, work: Coroutine[Any, Any, None]) -> None:
        """One thing at a time for each lease."""

        async def alone() -> None:
            try:
                await work
            except Exception:
                log.exception("%s: a defect in its lease", agent)
            finally:
                self._busy[agent] -= 1
                self._consider(agent)

        self._busy[agent] += 1
        task = self._loop.create_task(alone(), name=f"lease {agent}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _wake_at(self, agent: str, at: float) -> None:
        if timer := self._timers.get(agent):
            timer.cancel()
        delay_s = max(0.0, at - time.monotonic()) + 0.001
        self._timers[agent] = self._loop.call_later(delay_s, self._consider, agent)

    async def _thread(self, call: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self.executor, call)


def _names(doc: LeaseDoc, candidate: Candidate) -> bool:
    return doc.state == "held" and (doc.holder, doc.host) == (candidate.instance, candidate.host)
