"""Hangs are found in time, and nothing else is taken for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from integration.host.probing import OK, looping, serving
from outrider.fleet.spec import Probe


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
        loop = looping(
            port, probe, told=lambda _, healthy, detail: told.append("well" if healthy else detail), silences=listener
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
        loop = looping(
            port,
            Probe(interval_s=2.0, timeout_s=0.2),
            told=lambda _, healthy, detail: None if healthy else told.set(),
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
    loop = looping(unused_port, Probe(interval_s=0.05), told=lambda *_: None, silences=listener)
    loop.start()
    async with asyncio.timeout(5):
        assert await listener.hangs.get() - began >= 0.3
    loop.stop()
