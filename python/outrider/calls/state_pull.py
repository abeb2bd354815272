"""The receiving side: fetches from another instance what the own copy of its state lacks."""

from __future__ import annotations

import asyncio
import time
from typing import TypeVar

import msgspec

from outrider.calls.channel import Channel
from outrider.calls.frames import Refusal
from outrider.calls.state_folder import Manifest, Step, digest, hash_of, unsafe
from outrider.calls.state_orders import MANIFEST, READ, AskManifest, Manifested, Order, Pulled, Read
from outrider.calls.state_staging import Staging
from outrider.calls.workers import Workers, run_to_end
from outrider.errors import REFUSALS, CallFailed, CallRefused

T = TypeVar("T")

IN_FLIGHT = 8  # chunks asked for at one time


async def ask(channel: Channel, method: str, order: Order, kind: type[T], until: float) -> T:
    """One of the library's own methods, until then by the monotonic clock. Raises CallError."""
    answer, _ = await channel.exchange(method, order, "", 0, until, time.monotonic())
    if isinstance(answer, Refusal):
        raise REFUSALS.get(answer.kind, CallFailed)(answer.message)
    try:
        return msgspec.msgpack.decode(answer.body, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CallFailed(f"{method} was not answered as expected: {error}") from error


class Copying:
    """One copy. While the other works on, what changes meanwhile is left out; a `final` copy is exact or fails."""

    def __init__(self, channel: Channel, staging: Staging, workers: Workers, key: str, *, final: bool) -> None:
        self._channel = channel
        self._staging = staging
        self._workers = workers
        self._key = key
        self._final = final
        self._fetched = 0

    async def run(self, until: float) -> Pulled:
        """Stage it. Raises CallError and OSError."""
        began = time.monotonic()
        order = AskManifest(self._key, self._final)
        wanted = (await ask(self._channel, MANIFEST, order, Manifested, until)).items
        if fault := unsafe(wanted):
            raise CallRefused(f"the state that is offered is refused: {fault}")
        try:
            staged = await self._stage(wanted, until)
        except OSError:
            # A full disk must not stay full of what nobody can use.
            await run_to_end(self._workers, self._staging.clear)
            raise
        if self._final and staged != digest(wanted):
            raise CallFailed("the copy is not what the other has: the state is written to while it moves")
        total = sum(item.size for item in wanted)
        files = sum(item.kind == "file" for item in wanted)
        return Pulled(self._fetched, total, files, staged, time.monotonic() - began)

    async def _stage(self, wanted: Manifest, until: float) -> str:
        plan = await run_to_end(self._workers, lambda: self._staging.prepare(wanted))
        missing = ((step, chunk) for step in plan for chunk in step.chunks)

        async def fetch() -> None:
            for step, chunk in missing:
                await self._fetch(step, chunk, until)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(IN_FLIGHT):
                    group.create_task(fetch())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return await run_to_end(self._workers, lambda: self._staging.finish(wanted, plan))

    async def _fetch(self, step: Step, chunk: int, until: float) -> None:
        order = Read(self._key, step.item.path, chunk)
        try:
            data = await ask(self._channel, READ, order, bytes, until)
        except CallFailed:
            if self._final:
                raise
            return  # it is gone meanwhile
        if hash_of(data) == step.item.hashes[chunk]:
            await run_to_end(self._workers, lambda: self._staging.write(step, chunk, data))
            self._fetched += len(data)
        elif self._final:
            raise CallFailed(f"{step.item.path} was written to while it moved")
