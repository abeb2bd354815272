"""Probes of ports: open, overrun, refusing, and never one that talks to itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from integration.host.probing import check, serving, target
from outrider.fleet.spec import Probe
from outrider.host.ports import ephemeral_range, is_free
from outrider.host.probes import prober_of


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_nobody_listens(kind: str, unused_port: int) -> None:
    result = await check(Probe(type=kind), unused_port)
    assert not result.ok
    assert result.kind == "refusal"
    assert result.detail.endswith(f":{unused_port}{'/health' if kind == 'http' else ''}: Connection refused")


async def test_tcp_never_talks_to_itself() -> None:
    """A port of the kernel's own range may become the sender's port too; that connection is no server.

    The kernel walks the even half of that range, so as many questions as it has ports are sure to meet it.
    """
    ports = ephemeral_range()
    even = next(port for port in range(ports.start + ports.start % 2, ports.stop, 2) if is_free("127.0.0.1", port))
    prober = prober_of(Probe(type="tcp"), target(even))
    for _ in range(len(ports) // 2 + 100):
        assert not (await prober.check()).ok
    assert is_free("127.0.0.1", even)


async def test_tcp_connects_and_closes() -> None:
    closed: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closed.set_result(await reader.read())

    async with serving(handle) as port:
        assert (await check(Probe(type="tcp"), port)).ok
        assert await closed == b""


async def test_tcp_full_backlog_is_ill() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
            result = await check(Probe(type="tcp", timeout_s=0.2), port)
    assert result.detail == f"connect to 127.0.0.1:{port}: no answer within 0.2 s"
    assert result.kind == "silence"


async def test_unknown_address_is_ill() -> None:
    assert not (await check(Probe(timeout_s=5), 80, address="no-such-host.invalid")).ok
