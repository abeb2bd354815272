"""One migration, driven: look, decide, write; one step after the other until it has ended.

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
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from outrider.daemon.migration_copy import CopyAhead
from outrider.daemon.migration_lookout import Lookout
from outrider.daemon.migration_truth import Truth, read_truth
from outrider.errors import ConsulConflict, ConsulError
from outrider.migration.staged import edits
from outrider.migration.staged.journal import append
from outrider.migration.staged.machine import next_action
from outrider.migration.staged.moves import key_changes
from outrider.migration.staged.records import Entry, Journal, next_entry
from outrider.migration.staged.sight import Action, Begin, Copy, End, GoBack, Hold, Wait
from outrider.migration.staged.story import story_of
from outrider.registry.kv import Change, Guard
from outrider.registry.layout import PLACEMENT, PlacementDoc
from outrider.registry.leases import LEASES

if TYPE_CHECKING:
    from outrider.daemon.migrating import Migrations

log = logging.getLogger("outrider.migration")

TICK_S = 0.02
PERSON_S = 0.5  # while it waits for somebody to decide
TROUBLE_S = 0.25


class Drive:
    """One migration, for as long as this shim is elected."""

    def __init__(self, owner: Migrations, migration: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._owner = owner
        self._id = migration
        self._clock = clock
        self._lookout = Lookout(owner, migration, clock)
        self._copy = CopyAhead(owner, self._lookout.eyes)
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
                await asyncio.sleep(PERSON_S if waits and waits.person else TICK_S)
        except Exception:
            log.exception("a defect in the driver of migration %s; it is tried again", self._id)
            await asyncio.sleep(1.0)
        finally:
            self._owner.waits.pop(self._id, None)
            self._copy.stop()
            self._lookout.eyes.close()

    @property
    def _journal(self) -> Journal:
        return self._owner.journals[self._id]

    async def _turn(self) -> Wait | None:
        """Look and decide; what is to be written is decided again by what Consul's leader says."""
        await self._lookout.count(self._journal.spec)
        action = self._decide(self._known())
        if isinstance(action, Wait):
            return action
        if isinstance(action, Copy):
            self._copy.begin(self._journal.spec)
            return Wait("its state is copied ahead")
        truth = await self._owner.thread(partial(read_truth, self._owner.consul, self._journal.spec))
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
            self._lookout.step_begun()
            self._copy.step_begun()
        if truth.agent is None:
            remains = edits.left(truth.placement, spec, spec.source.instance, "", time.time()) if truth.index else None
            return End("cancelled", f"{spec.agent} is not in the fleet any more", remains)
        sight = self._lookout.sight(truth, truth.agent, self._copy, self._key)
        return next_action(spec, story, sight, time.time())

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
        await owner.thread(partial(append, owner.consul, journal.id, entry, changes, guards))
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
