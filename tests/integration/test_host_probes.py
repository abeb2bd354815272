"""Probes against real small servers: well, ill, slow, hanging, resetting, and closing at the wrong moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
import zmq
import zmq.asyncio

from outrider.fleet.spec import Probe
from outrider.host.ports import ephemeral_range, is_free
from outrider.host.probers import ProbeResult, Target
from outrider.host.probes import ProbeLoop, prober_of
from outrider.host.processes import environment_of

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


# Its successor is a hook that only a conftest.py may hold, and the other integration tests need no second loop.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy:DeprecationWarning")


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """The shim runs on uvloop where it is installed, else on asyncio's own loop."""
    return request.param()


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


def target(port: int, address: str = "127.0.0.1", heartbeat: Path = Path("/none")) -> Target:
    return Target("Echo-1", address, port, {"main": port}, heartbeat)


async def check(probe: Probe, port: int, **more: object) -> ProbeResult:
    prober = prober_of(probe, target(port, **more))
    try:
        return await prober.check()
    finally:
        prober.close()


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


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_nobody_listens(kind: str, unused_port: int) -> None:
    result = await check(Probe(type=kind), unused_port)
    assert not result.ok
    assert result.kind == "refusal"
    assert result.detail.endswith(f":{unused_port}{'/health' if kind == 'http' else ''}: Connection refused")


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


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


async def test_zmq_is_answered_then_hangs_then_is_answered_again() -> None:
    context = zmq.asyncio.Context()
    server = context.socket(zmq.REP)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    prober = prober_of(Probe(type="zmq", timeout_s=0.3, request='{"ask": 1}'), target(port))
    try:
        asking = asyncio.ensure_future(prober.check())
        assert await server.recv() == b'{"ask": 1}'
        await server.send(b"fine")
        assert (await asking).ok
        hung = await prober.check()
        assert hung.detail == f"request to tcp://127.0.0.1:{port}: no answer within 0.3 s"
        await server.recv()  # the question nobody waits for any more
        await server.send(b"late")
        asking = asyncio.ensure_future(prober.check())
        await server.recv()
        await server.send(b"fine")
        assert (await asking).ok
    finally:
        prober.close()
        server.close(linger=0)
        context.term()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("pass", ""),
        ("print('it is broken'); raise SystemExit(3)", "exit status 3 (it is broken)"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
        ("print('x' * 10_000_000); raise SystemExit(1)", f"exit status 1 ({'x' * 200})"),
    ],
)
async def test_command(code: str, said: str) -> None:
    result = await check(Probe(type="command", command=(sys.executable, "-c", code), timeout_s=1), 0)
    assert result.ok == (said == "")
    assert result.detail.endswith(said)


async def test_command_gets_the_port_and_leaves_nothing_behind(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    start = "subprocess.Popen(['sleep', '300'])"
    code = f"import subprocess, sys; print({start}.pid, sys.argv[1:], file=open(sys.argv[1], 'w'))"
    command = (sys.executable, "-c", code, str(note), "{port}", "{address}", "{other}")
    assert (await check(Probe(type="command", command=command, timeout_s=5), 1234)).ok
    pid, _, arguments = await asyncio.to_thread(lambda: note.read_text().partition(" "))
    assert "'1234', '127.0.0.1', '{other}'" in arguments
    async with asyncio.timeout(5):
        while environment_of(int(pid)):
            await asyncio.sleep(0)
            await asyncio.sleep(0.01)


async def test_command_that_is_not_there() -> None:
    result = await check(Probe(type="command", command=("/no/such/check",)), 0)
    assert result.detail == "/no/such/check: No such file or directory"


async def test_loop_tells_the_first_verdict_and_each_change() -> None:
    replies = {"now": OK}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(replies["now"])

    told: asyncio.Queue[tuple[str, bool, str]] = asyncio.Queue()
    latencies: list[float] = []
    async with serving(handle) as port:
        loop = ProbeLoop(
            "Echo-1",
            [Probe(interval_s=0.05, failures=2)],
            address="127.0.0.1",
            ports={"main": port},
            heartbeat=Path("/none"),
            on_result=lambda *verdict: told.put_nowait(verdict),
            on_latency=lambda _, seconds: latencies.append(seconds),
        )
        loop.start()
        async with asyncio.timeout(5):
            assert await told.get() == ("Echo-1", True, "")
            replies["now"] = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"
            _, healthy, detail = await told.get()
            assert not healthy
            assert detail.endswith("status 500")
            replies["now"] = OK
            assert (await told.get())[1]
        count = len(latencies)
        while len(latencies) < count + 5:  # five more answers change nothing, and nothing is told
            await asyncio.sleep(0.01)
            assert told.empty()
        loop.stop()


async def test_loop_sees_a_start_at_once(unused_port: int) -> None:
    """Its own interval is an hour; until it is ready it is asked ten times a second."""
    told: asyncio.Queue[tuple[str, bool, str]] = asyncio.Queue()
    loop = ProbeLoop(
        "Echo-1",
        [Probe(interval_s=3600)],
        address="127.0.0.1",
        ports={"main": unused_port},
        heartbeat=Path("/none"),
        on_result=lambda *verdict: told.put_nowait(verdict),
    )
    loop.start()
    async with asyncio.timeout(3):
        assert not (await told.get())[1]
        async with serving(replying(OK), unused_port):
            began = asyncio.get_running_loop().time()
            assert (await told.get())[1]
            assert asyncio.get_running_loop().time() - began < 0.3
    loop.stop()


async def test_loop_is_well_only_if_all_probes_are(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    told: asyncio.Queue[tuple[str, bool, str]] = asyncio.Queue()
    async with serving(replying(OK)) as port:
        loop = ProbeLoop(
            "Echo-1",
            [Probe(interval_s=0.05), Probe(type="heartbeat", interval_s=0.05, timeout_s=10)],
            address="127.0.0.1",
            ports={"main": port},
            heartbeat=beat,
            on_result=lambda *verdict: told.put_nowait(verdict),
        )
        loop.start()
        async with asyncio.timeout(5):
            assert (await told.get())[1:] == (False, f"heartbeat: {beat}: No such file or directory")
            beat.touch()
            assert (await told.get())[1]
            os.utime(beat, (1, 1))
            assert (await told.get())[2] == "heartbeat: none for more than 10 s"
        loop.stop()


async def test_loop_stopped_in_its_own_verdict_says_nothing_more() -> None:
    told: list[bool] = []
    async with serving(replying(OK)) as port:

        def verdict(instance: str, healthy: bool, detail: str) -> None:
            told.append(healthy)
            loop.stop()

        loop = ProbeLoop(
            "Echo-1",
            [Probe(interval_s=0.05), Probe(interval_s=0.05)],
            address="127.0.0.1",
            ports={"main": port},
            heartbeat=Path("/none"),
            on_result=verdict,
        )
        loop.start()
        await asyncio.sleep(0.3)
    assert told == [True]


async def test_loops_do_not_ask_all_at_once() -> None:
    """Twenty instances asked four times a second: their questions are spread over the quarter."""
    asked: list[float] = []
    enough = asyncio.Event()
    clock = asyncio.get_running_loop().time

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            asked.append(clock())
            if len(asked) == 80:
                enough.set()
            writer.write(OK)

    async with serving(handle) as port:
        loops = [
            ProbeLoop(
                f"Echo-{n}",
                [Probe(interval_s=0.25)],
                address="127.0.0.1",
                ports={"main": port},
                heartbeat=Path("/none"),
                on_result=lambda *_: None,
            )
            for n in range(20)
        ]
        for loop in loops:
            loop.start()
        async with asyncio.timeout(10):
            await enough.wait()
        for loop in loops:
            loop.stop()
    tenths = [int(at % 0.25 / 0.025) for at in asked[40:80]]
    assert max(tenths.count(tenth) for tenth in range(10)) <= 10


class Listener:
    """Fills Silences: notes who hangs, and believes what it is told to."""

    def __init__(self, *believes: bool) -> None:
        self.believes = list(believes)
        self.hangs: asyncio.Queue[float] = asyncio.Queue()
        self.doubts = 0

    def silent(self, instance: str, asked_at: float) -> bool:
        believed = self.believes.pop(0) if self.believes else True
        self.doubts += not believed
        return believed

    def hung(self, instance: str, detail: str) -> None:
        self.hangs.put_nowait(asyncio.get_running_loop().time())

    def answered(self, instance: str) -> None:
        """Not asked for here."""


@asynccontextmanager
async def hanging(probe: Probe, listener: Listener) -> AsyncIterator[tuple[list[float], list[str]]]:
    """A server that never answers again after its third answer; gives when that was, and the verdicts."""
    answers: list[float] = []
    told: list[str] = []
    clock = asyncio.get_running_loop().time

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n") and len(answers) < 3:
            writer.write(OK)
            answers.append(clock())
        await reader.read()

    async with serving(handle) as port:
        loop = ProbeLoop(
            "Echo-1",
            [probe],
            address="127.0.0.1",
            ports={"main": port},
            heartbeat=Path("/none"),
            on_result=lambda _, healthy, detail: told.append("well" if healthy else detail),
            silences=listener,
        )
        loop.start()
        yield answers, told
        loop.stop()


async def test_a_hang_is_found_in_time_at_default_probes() -> None:
    """The worst moment: just after an answer. One interval and two time-outs, 1.3 s; 1.5 s are promised."""
    listener = Listener()
    async with hanging(Probe(), listener) as (answers, told), asyncio.timeout(10):
        at = await listener.hangs.get()
        assert at - answers[-1] < 1.5
        assert len(told) == 2
        assert told[1].endswith("no answer within 0.4 s")
        await listener.hangs.get()  # told again, in case it was not killed
        assert len(told) == 2


async def test_who_fails_is_asked_again_before_its_next_turn() -> None:
    listener = Listener()
    async with hanging(Probe(interval_s=1.0, timeout_s=0.2), listener) as (answers, _), asyncio.timeout(10):
        assert await listener.hangs.get() - answers[-1] < 1.7  # 1.4 s; 2.2 s if it were asked at its turns alone


async def test_a_hang_to_be_kept_is_only_a_bad_verdict() -> None:
    listener = Listener()
    async with hanging(Probe(interval_s=0.05, timeout_s=0.05, hang="keep"), listener) as (_, told):
        await asyncio.sleep(1.0)
        assert len(told) == 2
    assert listener.hangs.empty()


async def test_silence_that_is_not_believed_does_not_count() -> None:
    listener = Listener(*[False] * 20)
    async with hanging(Probe(interval_s=0.05, timeout_s=0.05), listener) as (_, told), asyncio.timeout(10):
        await listener.hangs.get()
        assert listener.doubts == 20
        assert len(told) == 2


async def test_one_silence_takes_it_out_but_never_kills() -> None:
    listener = Listener(True, *[False] * 1000)
    async with hanging(Probe(interval_s=0.05, timeout_s=0.05, failures=1), listener) as (_, told):
        await asyncio.sleep(1.0)
        assert len(told) == 2
    assert listener.hangs.empty()


async def test_bad_answers_never_kill_and_are_not_asked_twice_in_one_moment() -> None:
    asked: list[float] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            asked.append(asyncio.get_running_loop().time())
            writer.write(OK if len(asked) == 1 else b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")

    listener, told = Listener(), asyncio.Event()
    async with serving(handle) as port:
        loop = ProbeLoop(
            "Echo-1",
            [Probe(interval_s=2.0, timeout_s=0.2)],
            address="127.0.0.1",
            ports={"main": port},
            heartbeat=Path("/none"),
            on_result=lambda _, healthy, detail: None if healthy else told.set(),
            silences=listener,
        )
        loop.start()
        async with asyncio.timeout(8):
            await told.wait()
        loop.stop()
    assert 0.15 < asked[2] - asked[1] < 1.0
    assert listener.hangs.empty()


async def test_a_port_that_refuses_for_long_is_silence(unused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outrider.host.probes.LASTING_S", 0.3)
    listener, began = Listener(), asyncio.get_running_loop().time()
    loop = ProbeLoop(
        "Echo-1",
        [Probe(interval_s=0.05)],
        address="127.0.0.1",
        ports={"main": unused_port},
        heartbeat=Path("/none"),
        on_result=lambda *_: None,
        silences=listener,
    )
    loop.start()
    async with asyncio.timeout(5):
        assert await listener.hangs.get() - began >= 0.3
    loop.stop()
