"""HTTP probes of real small servers: well, ill, slow, resetting, and closing at the wrong moment."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from integration.host.probing import OK, check, replying, serving, target
from outrider.fleet.spec import Probe
from outrider.host.probers import ProbeResult
from outrider.host.probes import prober_of


@pytest.mark.parametrize(
    "reply",
    [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\nthe rest does not matter",
    ],
)
async def test_http_is_well_below_400(reply: bytes) -> None:
    async with serving(replying(reply)) as port:
        result = await check(Probe(), port)
    assert result.ok, result
    assert result.seconds > 0


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "status 500"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not an HTTP reply"),
        (b"HTTP/1.1 2xx Fine\r\n\r\n", "not an HTTP reply"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "no answer within 0.2 s"),
        (b"HTTP/1.1 200 O", "no answer within 0.2 s"),
        (b"", "no answer within 0.2 s"),
    ],
)
async def test_http_says_what_is_wrong(reply: bytes, said: str) -> None:
    async with serving(replying(reply)) as port:
        result = await check(Probe(timeout_s=0.2), port)
        kind = "silence" if said.startswith("no answer") else "answer"
        assert result == ProbeResult(False, f"GET http://127.0.0.1:{port}/health: {said}", result.seconds, kind)


async def test_http_without_a_length_ends_with_the_connection() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    async with serving(handle) as port:
        assert (await check(Probe(), port)).ok


async def test_http_half_a_reply_and_the_end_is_ill() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    async with serving(handle) as port:
        assert "before its answer was complete" in (await check(Probe(), port)).detail


async def test_http_reset_is_ill() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with serving(handle) as port:
        result = await check(Probe(), port)
    assert "Connection reset by peer" in result.detail
    assert result.kind == "refusal"


async def test_http_keeps_its_connection_and_survives_its_loss() -> None:
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(3):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)

    async with serving(handle) as port:
        prober = prober_of(Probe(), target(port))
        results = [await prober.check() for _ in range(9)]
        prober.close()
    assert all(result.ok for result in results), results
    assert connections == 3


async def test_http_connection_that_closes_when_used_is_tried_again() -> None:
    """The server closes upon the second request: the classic race of kept connections, made certain."""
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")

    async with serving(handle) as port:
        prober = prober_of(Probe(), target(port))
        assert [(await prober.check()).ok for _ in range(3)] == [True] * 3
        prober.close()
    assert connections == 3


async def test_http_late_answer_is_not_taken_for_the_next() -> None:
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        if connections == 1:
            await asyncio.sleep(0.15)
            writer.write(OK)
        else:
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    async with serving(handle) as port:
        prober = prober_of(Probe(timeout_s=0.1), target(port))
        assert "no answer" in (await prober.check()).detail
        assert "status 503" in (await prober.check()).detail
        prober.close()


async def test_http_request_is_complete() -> None:
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)

    async with serving(handle) as port:
        await check(Probe(path="/up?now=1"), port)
    lines = seen[0].decode().split("\r\n")
    assert lines[0] == "GET /up?now=1 HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}" in lines
