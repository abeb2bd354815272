"""An agent's state folder goes with its lease to another instance. Only who has the placement's key may ask."""

from __future__ import annotations

import asyncio
import hmac
import inspect
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from outrider.calls.channel import open_channel
from outrider.calls.internal import Internal
from outrider.calls.state_folder import Manifest, digest
from outrider.calls.state_orders import (
    CHECKPOINT,
    MANIFEST,
    PULL,
    READ,
    UNCHANGED,
    AskManifest,
    Checkpoint,
    Manifested,
    Order,
    Pull,
    Pulled,
    Read,
    Unchanged,
    key_file,
)
from outrider.calls.state_pull import Copying
from outrider.calls.state_scan import Key, Scanner, read_chunk
from outrider.calls.state_staging import Staging
from outrider.calls.state_swap import delete_old, recover, swap
from outrider.calls.tls import client_context
from outrider.calls.workers import Workers, run_to_end
from outrider.discovery.api import runtime_dir
from outrider.discovery.records import Instance
from outrider.errors import CallRefused

log = logging.getLogger("outrider.calls")

T = TypeVar("T")
Hook = Callable[[], Any]
THREADS = 4


class Final(Struct, frozen=True):
    """What the final checkpoint found, and the stamp of the folder at that time."""

    manifest: Manifest
    digest: str
    stamp: dict[str, Key]


class StateMoves:
    """Of one instance. `on_checkpoint`, `on_restore`: functions of the agent, if it has any.

    What a crash left half replaced is finished here, before the agent reads it. Raises HostError if it cannot be.
    """

    def __init__(self, agent: str, instance: str, state: Path) -> None:
        self.on_checkpoint: Hook | None = None
        self.on_restore: Hook | None = None
        self._agent = agent
        self._instance = instance
        self._state = state
        self._runtime = Path(runtime_dir())
        self._scanner = Scanner(state)
        self._staging = Staging(state, self._scanner)
        self._workers = Workers(THREADS, f"{instance}-state")
        self._pulling: asyncio.Task[Pulled] | None = None
        self._moving = threading.Lock()  # files between the folders
        self._final: Final | None = None
        if recover(state):
            log.warning("%s: what a crash left of a new state is in place", instance)

    def methods(self) -> dict[str, Internal]:
        """By name."""
        served = {
            CHECKPOINT: self._checkpoint,
            MANIFEST: self._manifest,
            READ: self._read,
            UNCHANGED: self._unchanged,
            PULL: self._pull,
        }
        return {name: Internal(name, serve) for name, serve in served.items()}

    async def _checkpoint(self, body: Raw, limit_s: float) -> str:
        order = self._allowed(body, Checkpoint)
        if not order.final:
            return digest(await self._thread(lambda: self._scanner.scan(settle=True)))
        await self._call(self.on_checkpoint)
        self._final = await self._thread(self._find_final)
        return self._final.digest

    async def _manifest(self, body: Raw, limit_s: float) -> Manifested:
        order = self._allowed(body, AskManifest)
        if not order.final:
            return Manifested(await self._thread(lambda: self._scanner.scan(settle=True)))
        if self._final is None:
            raise CallRefused(f"{self._instance} is not about to give its state away")
        return Manifested(self._final.manifest)

    async def _read(self, body: Raw, limit_s: float) -> bytes:
        order = self._allowed(body, Read)
        return await self._thread(lambda: read_chunk(self._state, order.path, order.chunk))

    async def _unchanged(self, body: Raw, limit_s: float) -> bool:
        order = self._allowed(body, Unchanged)
        final, self._final = self._final, None
        stamp = await self._thread(self._scanner.stamp)
        return final is not None and (final.digest, final.stamp) == (order.digest, stamp)

    async def _pull(self, body: Raw, limit_s: float) -> Pulled:
        order = self._allowed(body, Pull)
        until = time.monotonic() + limit_s
        while self._pulling and not self._pulling.done():
            # Whoever asked for that one may be gone, and this one begins with what it brought.
            self._pulling.cancel()
            await asyncio.wait([self._pulling])
        pulling = self._pulling = asyncio.get_running_loop().create_task(self._pulled(order, until))
        try:
            return await pulling
        except asyncio.CancelledError:
            if (this := asyncio.current_task()) and this.cancelling():
                raise
            raise CallRefused(f"{self._instance} was asked for another copy meanwhile") from None

    async def _pulled(self, order: Pull, until: float) -> Pulled:
        began, given = time.monotonic(), order.source
        await self._thread(lambda: recover(self._state))
        source = Instance(
            given.agent, given.instance, given.host, given.address, given.ports.get("call", 0), given.ports
        )
        tls = await self._thread(client_context)
        channel = await open_channel(source, self._agent, self._runtime, until - began, tls)
        try:
            pulled = await Copying(channel, self._staging, self._workers, order.key, final=order.final).run(until)
        finally:
            channel.close()
        if order.final:
            await self._thread(self._swap)
            await self._call(self.on_restore)
            self._workers.submit(self._tidy)
        return msgspec.structs.replace(pulled, seconds=time.monotonic() - began)

    def _find_final(self) -> Final:
        # First the stamp: what is written after it is noticed, whether it was read or not.
        stamp = self._scanner.stamp()
        manifest = self._scanner.scan()
        return Final(manifest, digest(manifest), stamp)

    def _swap(self) -> None:
        with self._moving:
            swap(self._state)

    def _tidy(self) -> None:
        try:
            with self._moving:
                delete_old(self._state)
        except OSError as error:
            log.warning("%s: what its new state replaced cannot be deleted: %s", self._instance, error)

    def _allowed(self, body: Raw, kind: type[T]) -> T:
        """The order, if it has the key. Raises CallRefused."""
        key = msgspec.msgpack.decode(body, type=Order).key
        try:
            known = key_file(self._runtime, self._instance).read_bytes().strip()
        except FileNotFoundError:
            known = b""
        if not known or not hmac.compare_digest(known, key.encode()):
            raise CallRefused(f"{self._instance} moves its state for nobody without the key of its placement")
        return msgspec.msgpack.decode(body, type=kind)

    async def _call(self, hook: Hook | None) -> None:
        if hook is None:
            return
        if inspect.iscoroutinefunction(hook):
            await hook()
        else:
            await self._thread(hook)

    async def _thread(self, function: Callable[[], T]) -> T:
        return await run_to_end(self._workers, function)
