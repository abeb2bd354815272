"""Migrations that ended long ago are deleted by the shim that carries them out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Protocol

from outrider.errors import ConsulError
from outrider.migration.staged.records import Journal
from outrider.migration.staged.retention import delete, outdated
from outrider.registry.client import Consul
from outrider.registry.kv import Guard

log = logging.getLogger("outrider.migration")

EVERY_S = 5.0


class Elected(Protocol):
    """What is needed of the placer."""

    @property
    def elected(self) -> bool:
        """Whether this shim decides."""
        ...

    @property
    def guard(self) -> Guard:
        """What fails the write of one that does not any more."""
        ...


async def sweep(
    consul: Consul, executor: Executor, placer: Elected, journals: Callable[[], Mapping[str, Journal]]
) -> None:
    """Until it is cancelled. `journals`: as they are known now."""
    loop = asyncio.get_running_loop()
    while True:
        for journal in outdated(journals().values(), time.time()) if placer.elected else ():
            try:
                gone = await loop.run_in_executor(executor, partial(delete, consul, journal, placer.guard))
            except ConsulError as error:
                log.warning("migration %s, which ended long ago, is not deleted now: %s", journal.id, error.message)
                break
            if gone:
                log.info("migration %s, which ended long ago, is deleted", journal.id)
        await asyncio.sleep(EVERY_S)
