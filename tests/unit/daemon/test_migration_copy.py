"""State is copied ahead one round at a time, and what came of it belongs to the step."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from outrider.daemon.migration_copy import CopyAhead
from outrider.errors import CallFailed
from outrider.migration.staged.records import End, Spec
from outrider.migration.staged.sight import Copied

SPEC = Spec("m", "A", "state", End("A-1", "h1", "v1"), End("A-2", "h2", "v1"))
COPIED = Copied(100, 1000, 0.1)


class World:
    """Two instances whose state is copied as the test says."""

    def __init__(self) -> None:
        self.registered = True
        self.rounds: asyncio.Queue[asyncio.Future[Copied]] = asyncio.Queue()
        owner: Any = SimpleNamespace(thread=self._thread, consul=None, copy=self._copy)
        eyes: Any = SimpleNamespace(record=lambda instance, host: object() if self.registered else None)
        self.copy = CopyAhead(owner, eyes)

    async def _thread(self, call: Any) -> Any:
        del call
        return SimpleNamespace(key="k"), 1

    async def _copy(self, *_: Any) -> Copied:
        result: asyncio.Future[Copied] = asyncio.get_running_loop().create_future()
        self.rounds.put_nowait(result)
        return await result

    async def settled(self) -> None:
        """When the round is over."""
        async with asyncio.timeout(5):
            while True:
                if self.copy.copied or self.copy.error:
                    return
                await asyncio.sleep(0)


async def test_one_round_at_a_time() -> None:
    world = World()
    world.copy.begin(SPEC)
    world.copy.begin(SPEC)
    (await world.rounds.get()).set_result(COPIED)
    await world.settled()
    assert (world.copy.copied, world.copy.error, world.rounds.qsize()) == (COPIED, "", 0)


async def test_what_failed_is_said_until_it_is_tried_again() -> None:
    world = World()
    world.copy.begin(SPEC)
    (await world.rounds.get()).set_exception(CallFailed("its disk is full"))
    await world.settled()
    assert "its disk is full" in world.copy.error
    world.copy.begin(SPEC)
    assert world.copy.error == ""
    world.copy.stop()


async def test_one_that_is_not_registered_cannot_be_copied() -> None:
    world = World()
    world.registered = False
    world.copy.begin(SPEC)
    await world.settled()
    assert "is not registered" in world.copy.error


async def test_the_next_step_begins_without_it() -> None:
    world = World()
    world.copy.begin(SPEC)
    (await world.rounds.get()).set_result(COPIED)
    await world.settled()
    world.copy.step_begun()
    assert (world.copy.copied, world.copy.error) == (None, "")
