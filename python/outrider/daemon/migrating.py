"""Migrations are carried out by the shim that is elected to place, a few at a time, one task for each."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from typing import TypeVar

from outrider.daemon.migration_drive import Drive
from outrider.daemon.migration_sweep import sweep
from outrider.discovery.feed import View
from outrider.discovery.records import Instance
from outrider.failover.placer_loop import Placer
from outrider.host.config import Config
from outrider.migration.staged.journal import Read, Reader
from outrider.migration.staged.records import Entry, Journal
from outrider.migration.staged.sight import Copied, Wait
from outrider.migration.staged.story import story_of
from outrider.registry.client import Consul, Reply
from outrider.registry.layout import MIGRATIONS
from outrider.registry.leases import Lease
from outrider.registry.watch import Watch

T = TypeVar("T")
log = logging.getLogger("outrider.migration")

AT_ONCE = 4  # of the whole fleet
IDLE_S = 0.5


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

    def ask_again(self) -> None:
        """A host was lost, maybe the one that was to answer."""
        self._watch.ask_again()

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

    async def thread(self, call: Callable[[], T]) -> T:
        """Call Consul."""
        return await self._loop.run_in_executor(self.executor, call)

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
