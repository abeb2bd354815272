"""Migrations that ended long ago are deleted by the shim that carries them out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial

from outrider.errors import ConsulError
from outrider.failover.placer_loop import Placer
from outrider.migration.staged.records import Journal
from outrider.migration.staged.retention import delete, outdated
from outrider.registry.client import Consul

log = logging.getLogger("outrider.migration")

EVERY_S = 5.0


async def sweep(
    consul: Consul, executor: Executor, placer: Placer, journals: Callable[[], Mapping[str, Journal]]
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
