"""The probes of one instance over time: one verdict, told when it changes, and spread over the interval."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from integration.host.probing import OK, looping, replying, serving
from outrider.fleet.spec import Probe


async def test_loop_tells_the_first_verdict_and_each_change() -> None:
    replies = {"now": OK}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(replies["now"])

    told: asyncio.Queue[tuple[str, bool, str]] = asyncio.Queue()
    latencies: list[float] = []
    async with serving(handle) as port:
        loop = looping(
            port,
            Probe(interval_s=0.05, failures=2),
            told=lambda *verdict: told.put_nowait(verdict),
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
    loop = looping(unused_port, Probe(interval_s=3600), told=lambda *verdict: told.put_nowait(verdict))
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
        loop = looping(
            port,
            Probe(interval_s=0.05),
            Probe(type="heartbeat", interval_s=0.05, timeout_s=10),
            told=lambda *verdict: told.put_nowait(verdict),
            heartbeat=beat,
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

        loop = looping(port, Probe(interval_s=0.05), Probe(interval_s=0.05), told=verdict)
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
        loops = [looping(port, Probe(interval_s=0.25), told=lambda *_: None, name=f"Echo-{n}") for n in range(20)]
        for loop in loops:
            loop.start()
        async with asyncio.timeout(10):
            await enough.wait()
        for loop in loops:
            loop.stop()
    tenths = [int(at % 0.25 / 0.025) for at in asked[40:80]]
    assert max(tenths.count(tenth) for tenth in range(10)) <= 10
