"""Asks agents to move their state from one to the other. They do it themselves: the shim may not read it."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from outrider.calls.channel import open_channel
from outrider.calls.state_orders import CHECKPOINT, PULL, UNCHANGED, Checkpoint, Order, Pull, Pulled, Source, Unchanged
from outrider.calls.state_pull import ask
from outrider.discovery.records import Instance
from outrider.errors import CallFailed

T = TypeVar("T")
CALLER = "outriderd"


class Copied(Struct, frozen=True):
    """What a copy brought. `bytes` were fetched of `total_bytes`; `digest` is that of the whole copy."""

    bytes: int
    total_bytes: int
    files: int
    seconds: float
    digest: str


class Way(Struct, frozen=True):
    """How agents are reached: from which host, through its runtime folder or by TLS, and with which key."""

    key: str
    runtime: Path
    tls: ssl.SSLContext | None = None
    host: str = ""


async def pre_copy(
    source: Instance, heir: Instance, key: str, runtime: Path, tls: ssl.SSLContext | None, timeout_s: float,
    host: str = "",
) -> Copied:  # fmt: skip
    """The heir stages what its copy lacks, while the source works on. `host`: of this shim. Raises CallError."""
    return await _pull(Way(key, runtime, tls, host), source, heir, time.monotonic() + timeout_s, final=False)


async def move(way: Way, source: Instance, heir: Instance, timeout_s: float) -> Copied:
    """The source, which takes no calls and has none under way, gives its state to the heir. Raises CallError."""
    until = time.monotonic() + timeout_s
    given = await _ask(way, source, CHECKPOINT, Checkpoint(way.key, final=True), str, until)
    copied = await _pull(way, source, heir, until, final=True)
    if copied.digest != given:
        raise CallFailed(f"{heir.instance} has another state than {source.instance} gave it")
    if not await _ask(way, source, UNCHANGED, Unchanged(way.key, given), bool, until):
        raise CallFailed(f"{source.instance} wrote to its state while it moved")
    return copied


async def _pull(way: Way, source: Instance, heir: Instance, until: float, *, final: bool) -> Copied:
    at = Source(source.agent, source.instance, source.host, source.address, source.ports)
    pulled = await _ask(way, heir, PULL, Pull(way.key, at, final), Pulled, until)
    return Copied(pulled.bytes, pulled.total_bytes, pulled.files, pulled.seconds, pulled.digest)


async def _ask(way: Way, instance: Instance, method: str, order: Order, kind: type[T], until: float) -> T:
    left_s = until - time.monotonic()
    channel = await open_channel(instance, CALLER, way.runtime, left_s, way.tls, way.host)
    try:
        return await ask(channel, method, order, kind, until)
    finally:
        channel.close()
