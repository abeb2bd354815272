"""A call to a host that loses its power ends when the host is known to be lost: no connection would ever say so."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from authority import Authority
from outrider.calls import channel as channels
from outrider.calls import connection as connections
from outrider.calls import endpoint, frames
from outrider.calls.channel import open_channel
from outrider.calls.connection import Connection
from outrider.calls.endpoint import connect
from outrider.calls.frames import Reply
from outrider.discovery.records import Instance
from outrider.errors import CallTimeout, ConnectionLost

NOWHERE = Path("/nonexistent")
MOMENT_S, LONG_S = 0.3, 10.0  # the first is waited out, the second never is


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connections, channels, endpoint):
        monkeypatch.setattr(module, "LOOK_S", 0.02)


class Host:
    """Whether it is lost: from the look of that number on. `then` is done at each look before."""

    def __init__(self, lost_from: int, then: Callable[[], None] = lambda: None) -> None:
        self.lost_from, self.then, self.looks = lost_from, then, 0

    def __call__(self) -> bool:
        self.looks += 1
        if self.looks >= self.lost_from:
            return True
        self.then()
        return False


NEVER = 1 << 30


def instance(port: int) -> Instance:
    return Instance("Echo", "Echo-1", "far", "127.0.0.1", port, {"call": port})


def reply(body: str) -> bytes:
    return b"".join(frames.encode(Reply(1, 0, msgspec.Raw(msgspec.msgpack.encode(body)))))


def ask(connection: Connection, timeout_s: float, *, in_need: bool = False) -> object:
    now = time.monotonic()
    answer, _ = connection.exchange("say", {}, "", 0, now + timeout_s, now, in_need)
    assert isinstance(answer, Reply)
    return msgspec.msgpack.decode(answer.body)


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["plain", "tls"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Both ends of a connection."""
    here, there = socket.socketpair()
    if request.param == "tls":
        here, there = encrypted(here, there, tmp_path)
    with here, there:
        yield here, there


def encrypted(here: socket.socket, there: socket.socket, folder: Path) -> Pair:
    authority = Authority(folder, "ca")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue("server"))
    client = ssl.create_default_context(cafile=authority.file)
    with ThreadPoolExecutor(1) as threads:
        accepted = threads.submit(server.wrap_socket, there, server_side=True)
        return client.wrap_socket(here, server_hostname="127.0.0.1"), accepted.result(10)


def test_a_call_ends_once_its_host_is_lost(pair: Pair) -> None:
    host = Host(lost_from=3)
    with pytest.raises(ConnectionLost, match="its host is lost") as caught:
        ask(Connection(pair[0], "Echo", "me", lost=host), LONG_S)
    assert not caught.value.safe
    assert host.looks == 3


def test_an_answer_that_takes_many_looks_is_still_one(pair: Pair) -> None:
    parts = iter([reply("slow")[:7], reply("slow")[7:]])
    host = Host(NEVER, then=lambda: pair[1].sendall(next(parts)) if host.looks in (3, 6) else None)
    assert ask(Connection(pair[0], "Echo", "me", lost=host), LONG_S) == "slow"
    assert host.looks == 6


def test_a_call_ends_at_its_deadline_however_often_it_looks(pair: Pair) -> None:
    host = Host(NEVER)
    with pytest.raises(CallTimeout):
        ask(Connection(pair[0], "Echo", "me", lost=host), MOMENT_S)
    assert host.looks > 1


def test_what_was_sent_in_need_to_a_lost_host_waits_until_the_end(pair: Pair) -> None:
    host = Host(lost_from=1)
    connection = Connection(pair[0], "Echo", "me", lost=host)
    with pytest.raises(CallTimeout):
        ask(connection, MOMENT_S, in_need=True)
    assert host.looks == 0


@contextlib.contextmanager
def full() -> Iterator[int]:
    """A port whose queue is full: the kernel drops what comes, as if there was no host."""
    with socket.socket() as sock, contextlib.ExitStack() as held:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(4):
            one = held.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(sock.getsockname())
        yield int(sock.getsockname()[1])


def test_who_still_connects_to_a_lost_host_has_sent_nothing() -> None:
    with full() as port:
        with pytest.raises(ConnectionLost) as caught:
            connect(instance(port), NOWHERE, LONG_S, None, Host(lost_from=3))
        assert caught.value.safe
        with pytest.raises(TimeoutError):  # lost before: it is tried for want of a better one
            connect(instance(port), NOWHERE, MOMENT_S, None, Host(lost_from=1))
        with pytest.raises(TimeoutError):
            connect(instance(port), NOWHERE, MOMENT_S, None)


def test_connections_are_made_and_refused_as_ever() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        connect(instance(port), NOWHERE, LONG_S, None, Host(NEVER)).close()
    with pytest.raises(ConnectionRefusedError):
        connect(instance(port), NOWHERE, LONG_S, None, Host(NEVER))


@pytest.fixture
async def silent() -> AsyncIterator[int]:
    """The port of one that takes calls and answers none."""

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(read, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def exchange(channel: channels.Channel, timeout_s: float) -> object:
    now = time.monotonic()
    return await channel.exchange("say", {}, "", 0, now + timeout_s, now)


async def test_coroutines_end_once_their_host_is_lost(silent: int) -> None:
    channel = await open_channel(instance(silent), "me", NOWHERE, LONG_S, None, lost=Host(lost_from=5))
    ends = await asyncio.gather(*(exchange(channel, LONG_S) for _ in range(3)), return_exceptions=True)
    assert [(type(end), str(end)) for end in ends] == [(ConnectionLost, "its host is lost")] * 3
    assert not channel.is_open


async def test_coroutines_that_ask_a_lost_host_in_need_wait_until_the_end(silent: int) -> None:
    host = Host(lost_from=1)
    channel = await open_channel(instance(silent), "me", NOWHERE, LONG_S, None, lost=host)
    with pytest.raises(CallTimeout):
        await exchange(channel, MOMENT_S)
    assert host.looks > 1
    assert channel.is_open
    channel.close()


async def test_nobody_looks_while_no_call_is_under_way(silent: int) -> None:
    host = Host(NEVER)
    channel = await open_channel(instance(silent), "me", NOWHERE, LONG_S, None, lost=host)
    with pytest.raises(CallTimeout):
        await exchange(channel, MOMENT_S)
    await asyncio.sleep(0.1)
    looks = host.looks
    await asyncio.sleep(0.1)
    assert host.looks == looks
    channel.close()


async def test_coroutines_that_still_connect_to_a_lost_host_have_sent_nothing() -> None:
    with full() as port:
        with pytest.raises(ConnectionLost) as caught:
            await open_channel(instance(port), "me", NOWHERE, LONG_S, None, lost=Host(lost_from=3))
        assert caught.value.safe
        with pytest.raises(CallTimeout):
            await open_channel(instance(port), "me", NOWHERE, MOMENT_S, None, lost=Host(lost_from=1))
