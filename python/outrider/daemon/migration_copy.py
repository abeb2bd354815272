"""The state of a migrating agent is copied ahead beside everything else: the source works on."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from outrider.daemon.migration_eyes import Eyes
from outrider.errors import CallError
from outrider.migration.staged.records import Spec
from outrider.migration.staged.sight import Copied
from outrider.registry.kv import get_doc
from outrider.registry.layout import MoveDoc, move_key

if TYPE_CHECKING:
    from outrider.daemon.migrating import Migrations

TIMEOUT_S = 300.0
PAUSE_S = 0.05  # before each try


class CopyAhead:
    """Of one migration. `copied`, `error`: what came of it since the step was begun."""

    def __init__(self, owner: Migrations, eyes: Eyes) -> None:
        self.copied: Copied | None = None
        self.error = ""
        self._owner = owner
        self._eyes = eyes
        self._task: asyncio.Task[Copied] | None = None

    def step_begun(self) -> None:
        """What came of it was of the step before."""
        self.copied, self.error = None, ""

    def begin(self, spec: Spec) -> None:
        """Another round, unless one is under way."""
        if self._task is None:
            self.error = ""
            self._task = asyncio.get_running_loop().create_task(self._once(spec))
            self._task.add_done_callback(self._done)

    def stop(self) -> None:
        """End the round that is under way."""
        if self._task:
            self._task.cancel()

    async def _once(self, spec: Spec) -> Copied:
        await asyncio.sleep(PAUSE_S)
        source = self._eyes.record(spec.source.instance, spec.source.host)
        heir = self._eyes.record(spec.target.instance, spec.target.host)
        if source is None or heir is None:
            raise CallError("one of the two instances is not registered")
        at = move_key(spec.source.host, spec.agent)
        found, _ = await self._owner.thread(partial(get_doc, self._owner.consul, at, MoveDoc))
        if found is None:
            raise CallError("Consul has no key to it")
        return await self._owner.copy(source, heir, found.key, TIMEOUT_S)

    def _done(self, task: asyncio.Task[Copied]) -> None:
        self._task = None
        if task.cancelled():
            return
        if error := task.exception():
            self.error = str(error)
        else:
            self.copied = task.result()
