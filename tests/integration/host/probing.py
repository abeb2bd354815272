"""Small servers to be probed, and probes of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from outrider.fleet.spec import Probe
from outrider.host.probers import ProbeResult, Target
from outrider.host.probes import ProbeLoop, prober_of

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NO_BEAT = Path("/none")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Told = Callable[[str, bool, str], None]


@asynccontextmanager
async def serving(handler: Handler, port: int = 0) -> AsyncIterator[int]:
    """A TCP server on loopback; gives its port."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", port)
    yield server.sockets[0].getsockname()[1]
    server.close()


def replying(*replies: bytes) -> Handler:
    """Answers each request of a connection with the next of `replies`, then with the last one again."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(replies)
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()

    return handle


def target(port: int, address: str = "127.0.0.1") -> Target:
    return Target("Echo-1", address, port, {"main": port}, NO_BEAT)


async def check(probe: Probe, port: int, **more: object) -> ProbeResult:
    prober = prober_of(probe, target(port, **more))
    try:
        return await prober.check()
    finally:
        prober.close()


def looping(
    port: int, *probes: Probe, told: Told, name: str = "Echo-1", heartbeat: Path = NO_BEAT, **more: Any
) -> ProbeLoop:
    """The probes of one instance, not started yet; verdicts go to `told`."""
    ports = {"main": port}
    return ProbeLoop(name, probes, address="127.0.0.1", ports=ports, heartbeat=heartbeat, on_result=told, **more)
