"""Migrations are carried out by the shim that is elected to place: one task for each, which looks, decides and writes.

It decides by what it knows, reads everything anew from Consul's leader before it writes, and decides again by that.
The write is one transaction that fails if the election, an operator's run, the journal, the agent's document, its
placement or the lease has changed since: so of two drivers, or of one that stood still, only what fits the truth is
ever done.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Protocol, TypeVar

from outrider.daemon.migration_eyes import Eyes
from outrider.daemon.migration_sweep import Elected, sweep
from outrider.daemon.migration_truth import Truth, read_truth
from outrider.discovery.feed import View
from outrider.discovery.records import Instance
from outrider.errors import CallError, ConsulConflict, ConsulError
from outrider.failover.placer import Picture
from outrider.host.config import Config
from outrider.migration.staged import edits
from outrider.migration.staged.beside import Beside, Mode, looked
from outrider.migration.staged.evidence import baseline_of, of_gpu
from outrider.migration.staged.journal import Read, Reader, append
from outrider.migration.staged.machine import next_action
from outrider.migration.staged.moves import key_changes
from outrider.migration.staged.plan import Fleet, refusals
from outrider.migration.staged.records import Entry, Journal, next_entry
from outrider.migration.staged.sight import Action, Begin, Copied, Copy, Counts, End, GoBack, Hold, Sight, Wait
from outrider.migration.staged.story import JUDGED, story_of
from outrider.registry.client import Consul, Reply
from outrider.registry.kv import Change, Guard, get_doc
from outrider.registry.layout import MIGRATIONS, PLACEMENT, AgentDoc, MoveDoc, PlacementDoc, move_key
from outrider.registry.leases import LEASES, Lease
from outrider.registry.watch import Watch

T = TypeVar("T")
log = logging.getLogger("outrider.migration")

AT_ONCE = 4  # of the whole fleet
TICK_S = 0.02
IDLE_S = 0.5
COUNT_S = 0.1  # from one question for counts to the next
REST_S = 0.25  # after a cutover, for the calls that waited for it: they come at once
TROUBLE_S = 0.25
COPY_TIMEOUT_S = 300.0
# What its shim says of a process that ended by itself; that it did may be said for milliseconds only.
ENDED = ("died:", "exited:", "starting:")
COPY_PAUSE_S = 0.05  # before each try


class Placer(Elected, Protocol):
    """What is needed of the placer."""

    def picture(self) -> Picture:
        """Which hosts are lost or in trouble."""
        ...


CopyState = Callable[[Instance, Instance, str, float], Awaitable[Copied]]
"""Copies the state of one instance to another that shows the key, within so many seconds. Raises CallError."""


class Migrations:
    """Of one shim. Runs on the event loop; Consul is called in `executor`."""

    def __init__(
        self,
        consul: Consul,
        executor: Executor,
        config: Config,
        placer: Placer,
        view: Callable[[], View],
        leases: Callable[[], Mapping[str, Lease]],
        copy: CopyState,
    ) -> None:
        self.copy = copy
        self.consul = consul
        self.executor = executor
        self.config = config
        self.placer = placer
        self.view = view
        self.leases = leases
        self.journals: dict[str, Journal] = {}
        self.counts: Counter[str] = Counter()
        self.waits: dict[str, Wait] = {}
        self._drives: dict[str, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._said: set[str] = set()
        self.began: dict[str, tuple[Entry | None, float]] = {}  # by migration: its step, and since when
        self._reader = Reader()
        self._watch = Watch(
            consul,
            f"/v1/kv/{MIGRATIONS}",
            params={"recurse": ""},
            on_change=self._heard,
            on_contact=lambda contact: None,
            name=MIGRATIONS,
        )
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def start(self) -> None:
        """Follow the journals; while elected carry them out, and delete what ended long ago."""
        self._watch.start()
        old = sweep(self.consul, self.executor, self.placer, lambda: self.journals)
        self._tasks = (
            self._loop.create_task(self._run(), name="migrations"),
            self._loop.create_task(old, name="old migrations"),
        )

    async def stop(self) -> None:
        """Leave every migration where it is: the next driver goes on."""
        tasks = [*self._tasks, *self._drives.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._watch.stop)

    @property
    def held(self) -> tuple[str, ...]:
        """Migrations that a person must decide about."""
        going = [journal for journal in self.journals.values() if journal.ended is None]
        return tuple(journal.id for journal in going if story_of(journal).direction == "held")

    def wrote(self, journal: Journal) -> None:
        """An entry was added: known before the watch tells."""
        self.journals[journal.id] = journal

    def _heard(self, reply: Reply) -> None:
        """In the watch's thread, which does the work of reading."""
        self._loop.call_soon_threadsafe(self._changed, self._reader.read(reply))

    def _changed(self, read: Read) -> None:
        for problem in read.problems:
            if problem not in self._said:
                self._said.add(problem)
                log.error("a migration's journal cannot be followed, and nothing is done about it: %s", problem)
        for name, journal in read.journals.items():
            known = self.journals.get(name)
            if known is None or journal.broken or len(journal.entries) >= len(known.entries):
                self.journals[name] = journal
        for name in self.journals.keys() - read.journals.keys():
            del self.journals[name]
            self.began.pop(name, None)
        self._news.set()

    async def _run(self) -> None:
        while True:
            self._drives = {name: task for name, task in self._drives.items() if not task.done()}
            if self.placer.elected:
                for journal in self._due():
                    drive = Drive(self, journal.id)
                    self._drives[journal.id] = self._loop.create_task(drive.run(), name=f"migration {journal.id}")
            self._news.clear()
            try:
                async with asyncio.timeout(IDLE_S):
                    await self._news.wait()
            except TimeoutError:
                pass

    def _due(self) -> list[Journal]:
        """What may be driven and is not, the oldest first; one that waits for a person takes nobody's turn."""
        active = [j for j in self.journals.values() if j.ended is None and not j.broken]
        active.sort(key=lambda journal: journal.spec.at)
        busy = sum(1 for name in self._drives if not (name in self.waits and self.waits[name].person))
        due = []
        for journal in active:
            story = story_of(journal)
            if journal.id in self._drives or (self._follows(journal) and not story.asked_back):
                continue
            if busy < AT_ONCE or story.began:  # what was begun goes on
                due.append(journal)
                busy += 1
        return due

    def _follows(self, journal: Journal) -> bool:
        """Whether others are to end before it: it must not take their turn."""
        others = (self.journals.get(name) for name in journal.spec.after)
        return any(other is not None and other.ended is None for other in others)


class Drive:
    """One migration, for as long as this shim is elected."""

    def __init__(self, owner: Migrations, migration: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._owner = owner
        self._id = migration
        self._clock = clock
        self._eyes = Eyes(owner.view, owner.config, clock)
        self._unheld_since: float | None = None
        self._probes = self._vram = (0, 0)
        self._died = ""
        self._at_begin: Counts | None = None
        self._waited_for: Counts | None = None
        self._beside = Beside()
        self._asked_at = float("-inf")
        self._copying: asyncio.Task[Copied] | None = None
        self._copied: Copied | None = None
        self._copy_error = ""
        self._key = secrets.token_hex(32)

    async def run(self) -> None:
        """Until it has ended, or another shim drives it."""
        try:
            while self._owner.placer.elected and not (self._journal.ended or self._journal.broken):
                try:
                    waits = await self._turn()
                except ConsulConflict as error:
                    log.debug("%s: %s", self._id, error.message)
                    await asyncio.sleep(TICK_S)
                    continue
                except ConsulError as error:
                    log.warning("migration %s waits for Consul: %s", self._id, error.message)
                    await asyncio.sleep(TROUBLE_S)
                    continue
                if waits is not None:
                    self._owner.waits[self._id] = waits
                await asyncio.sleep(IDLE_S if waits and waits.person else TICK_S)
        except Exception:
            log.exception("a defect in the driver of migration %s; it is tried again", self._id)
            await asyncio.sleep(1.0)
        finally:
            self._owner.waits.pop(self._id, None)
            if self._copying:
                self._copying.cancel()
            self._eyes.close()

    @property
    def _journal(self) -> Journal:
        return self._owner.journals[self._id]

    async def _turn(self) -> Wait | None:
        """Look and decide; what is to be written is decided again by what Consul's leader says."""
        await self._count()
        action = self._decide(self._known())
        if isinstance(action, Wait):
            return action
        if isinstance(action, Copy):
            return self._copy()
        truth = await self._thread(partial(read_truth, self._owner.consul, self._journal.spec))
        if truth.busy:
            await asyncio.sleep(TROUBLE_S)
            return Wait(truth.busy)
        if truth.journal != self._journal:
            self._owner.wrote(truth.journal)
            if truth.journal.broken:
                return Wait(truth.journal.broken)
        action = self._decide(truth)
        if isinstance(action, Begin | GoBack | Hold | End):
            await self._write(action, truth)
        return None

    def _known(self) -> Truth:
        view, spec = self._owner.view(), self._journal.spec
        lease = self._owner.leases().get(spec.agent)
        doc = view.placements.get(spec.agent) or PlacementDoc(spec.agent)
        agent = view.agents.get(spec.agent)
        return Truth(self._journal, doc, 0, agent, lease)

    def _decide(self, truth: Truth) -> Action:
        journal, spec = truth.journal, truth.journal.spec
        story = story_of(journal)
        began, _ = self._owner.began.get(self._id, (None, 0.0))
        if story.began != began or self._id not in self._owner.began:
            self._owner.began[self._id] = story.began, self._clock()
            self._probes, self._copied, self._copy_error = (0, 0), None, ""
            self._vram = (0, 0)
            self._at_begin = self._waited_for = None
            self._beside = Beside(usual=self._beside.usual)
            self._died = ""
        if truth.agent is None:
            remains = edits.left(truth.placement, spec, spec.source.instance, "", time.time()) if truth.index else None
            return End("cancelled", f"{spec.agent} is not in the fleet any more", remains)
        return next_action(spec, story, self._sight(truth, truth.agent), time.time())

    def _sight(self, truth: Truth, agent: AgentDoc) -> Sight:
        spec, picture = truth.journal.spec, self._owner.placer.picture()
        spots = {spec.source.instance: spec.source.host, spec.target.instance: spec.target.host}
        passing, trouble = self._eyes.look(spots)
        if trouble.get(spec.target.instance, "").startswith(ENDED):
            self._died = trouble[spec.target.instance]
        view, (began, began_at) = self._owner.view(), self._owner.began[self._id]
        refused: tuple[str, ...] = ()
        if began is None and truth.index:  # it costs too much to ask again and again
            agents = {**view.agents, spec.agent: agent}
            placements = {**view.placements, spec.agent: truth.placement}
            fleet = Fleet(agents, placements, view.hosts, {**picture.trouble, **dict.fromkeys(picture.lost, "is lost")})
            refused = tuple(refusals(spec, fleet))
        journals = self._owner.journals
        others = {name: ended.outcome if (ended := journals[name].ended) else None
                  for name in spec.after if name in journals}  # fmt: skip
        return Sight(
            placement=truth.placement,
            agent=agent,
            lease=truth.lease.doc if truth.lease else None,
            locked=bool(truth.lease and truth.lease.session),
            waited_s=self._clock() - began_at,
            passing=passing,
            trouble=trouble,
            died=self._died,
            unwell=self._eyes.unwell,
            unheld_s=self._unheld_s(truth),
            known_holder=self._eyes.holders(spots),
            lost=frozenset(picture.lost) | _unknown(view, spots.values()),
            counts=dict(self._eyes.counts),
            at_begin=self._at_begin,
            waited_for=self._waited_for,
            aside=self._beside.aside,
            worst=self._beside.worst,
            probes=self._probes,
            vram=self._vram,
            copied=self._copied,
            copy_error=self._copy_error,
            others=others,
            refused=refused,
            new_key=self._key,
        )

    async def _count(self) -> None:
        """Ask both instances how their calls went."""
        spec, now = self._journal.spec, self._clock()
        if now - self._asked_at < COUNT_S:
            return
        self._asked_at = now
        spots = {spec.source.instance: spec.source.host, spec.target.instance: spec.target.host}
        bad, n = self._probes
        self._probes = bad + (spec.target.instance not in self._eyes.look(spots)[0]), n + 1
        agent = self._owner.view().agents.get(spec.agent)
        declared = agent.agent.resources.vram_mib if agent else None
        self._vram = of_gpu(self._vram, self._eyes.vram_mib(spec.target.instance, spec.target.host), declared)
        await self._eyes.ask(spots)
        counts = self._eyes.counts.get(spec.target.instance)
        self._at_begin = self._at_begin or counts
        _, began_at = self._owner.began.get(self._id, (None, now))
        if self._waited_for is None and now - began_at >= REST_S:
            self._waited_for = counts
        self._measure(spots, counts)

    def _measure(self, spots: Mapping[str, str], counts: Counts | None) -> None:
        """Whether its machine is slow just now, by how soon the source answers while it is well."""
        source, story = self._journal.spec.source.instance, story_of(self._journal)
        mode: Mode = "usual" if not story.cut_over and story.step != "canary" else "rest"
        if self._waited_for is not None and story.step in ("canary", JUDGED):
            mode = "judge"
        took_s = self._eyes.took.get(source) if source in self._eyes.look(spots)[0] else None
        baseline = baseline_of(story.evidence.get("start", {}))
        self._beside = looked(self._beside, mode, took_s, counts, baseline)

    def _unheld_s(self, truth: Truth) -> float:
        """For how long the target has not held the lease."""
        lease, target, now = truth.lease, truth.journal.spec.target.instance, self._clock()
        if lease and lease.session and lease.doc.holder == target:
            self._unheld_since = None
            return 0.0
        self._unheld_since = now if self._unheld_since is None else self._unheld_since
        return now - self._unheld_since

    async def _write(self, action: Begin | GoBack | Hold | End, truth: Truth) -> None:
        owner, journal = self._owner, truth.journal
        entry, doc = self._entry(action, journal)
        guards = [owner.placer.guard, *truth.guards]
        changes = key_changes(journal.spec, action, truth.placement, self._key)
        if doc is not None and doc != truth.placement:
            changes.append(Change(PLACEMENT + doc.agent, doc, truth.index))
        elif truth.index:
            guards.append(Guard(PLACEMENT + journal.spec.agent, index=truth.index))
        if truth.lease and journal.spec.strategy != "replicated":
            guards.append(Guard(LEASES + journal.spec.agent, index=truth.lease.index))
        await self._thread(partial(append, owner.consul, journal.id, entry, changes, guards))
        owner.wrote(journal.followed_by(entry))
        self._say(action)

    def _entry(self, action: Begin | GoBack | Hold | End, journal: Journal) -> tuple[Entry, PlacementDoc | None]:
        make = partial(next_entry, journal, at=time.time(), by=self._owner.config.host)
        match action:
            case Begin():
                return make("begun", step=action.step, said=action.said, evidence=action.evidence), action.doc
            case GoBack():
                return make("rollback", said=action.why, evidence=action.evidence), None
            case Hold():
                return make("held", said=action.why), action.doc
            case End():
                return make("ended", said=action.said, outcome=action.outcome, evidence=action.evidence), action.doc

    def _say(self, action: Begin | GoBack | Hold | End) -> None:
        spec = self._journal.spec
        match action:
            case Begin():
                log.info("migration %s of %s: %s", spec.id, spec.agent, action.step)
            case GoBack():
                log.warning("migration %s of %s goes back: %s", spec.id, spec.agent, action.why)
            case Hold():
                log.error("migration %s of %s is held: %s", spec.id, spec.agent, action.why)
            case End():
                self._owner.counts[action.outcome] += 1
                log.warning("migration %s of %s: %s: %s", spec.id, spec.agent, action.outcome, action.said)

    def _copy(self) -> Wait:
        """State is copied ahead beside everything else; the source works on."""
        if self._copying is None:
            self._copy_error = ""
            self._copying = asyncio.get_running_loop().create_task(self._copy_once())
            self._copying.add_done_callback(self._copy_done)
        return Wait("its state is copied ahead")

    async def _copy_once(self) -> Copied:
        await asyncio.sleep(COPY_PAUSE_S)
        spec, owner = self._journal.spec, self._owner
        source = self._eyes.record(spec.source.instance, spec.source.host)
        heir = self._eyes.record(spec.target.instance, spec.target.host)
        if source is None or heir is None:
            raise CallError("one of the two instances is not registered")
        at = move_key(spec.source.host, spec.agent)
        found, _ = await self._thread(partial(get_doc, owner.consul, at, MoveDoc))
        if found is None:
            raise CallError("Consul has no key to it")
        return await owner.copy(source, heir, found.key, COPY_TIMEOUT_S)

    def _copy_done(self, task: asyncio.Task[Copied]) -> None:
        self._copying = None
        if task.cancelled():
            return
        if error := task.exception():
            self._copy_error = str(error)
        else:
            self._copied = task.result()

    async def _thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._owner.executor, call)


def _unknown(view: View, hosts: Iterable[str]) -> frozenset[str]:
    """Those that were taken out of the inventory and are not in Consul's catalog either: nobody looks after them."""
    known = view.nodes | view.hosts.keys()
    return frozenset(host for host in hosts if view.nodes and host not in known)
