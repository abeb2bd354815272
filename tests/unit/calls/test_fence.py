"""An instance of a singleton begins, answers and ends its work by the lease that it reads from memory."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outrider.calls import fence as fence_module
from outrider.calls.dispatch import Dispatcher
from outrider.calls.fence import STOP_S, Fence
from outrider.calls.frames import Refusal, Reply, Request
from outrider.calls.methods import Method
from outrider.discovery.lease_file import LeaseReader, LeaseWriter
from outrider.errors import NotHolder

FOREVER = 2**62


class Caller:
    """A connection that keeps what it is sent."""

    def __init__(self) -> None:
        self.got: dict[int, Reply | Refusal] = {}

    def send(self, message: Any) -> None:
        self.got[message.id] = message


@pytest.fixture
def lease(tmp_path: Path) -> LeaseWriter:
    return LeaseWriter(tmp_path / "A-1")


@pytest.fixture
def fence(lease: LeaseWriter, tmp_path: Path) -> Fence:
    return Fence("A", "A-1", LeaseReader(tmp_path / "A-1"))


def request(number: int, method: str = "work") -> Request:
    return Request(number, method, 5_000_000, "", 0, msgspec.Raw(msgspec.msgpack.encode({})))


def test_nothing_is_admitted_without_a_lease_nor_from_who_knows_a_later_one(lease: LeaseWriter, fence: Fence) -> None:
    with pytest.raises(NotHolder):
        fence.admit(0)
    lease.grant(5, FOREVER)
    assert fence.admit(5) == 5
    with pytest.raises(NotHolder):
        fence.admit(6)
    lease.close_to_new()
    with pytest.raises(NotHolder):
        fence.admit(0)
    assert fence.still(5)


async def test_what_waits_when_the_lease_ends_is_not_begun(lease: LeaseWriter, fence: Fence) -> None:
    begun: list[int] = []

    async def work() -> None:
        begun.append(len(begun))
        await asyncio.sleep(30)

    dispatcher = Dispatcher("A", "A-1", 1, 4)
    dispatcher.fence = fence
    dispatcher.attach(asyncio.get_running_loop())
    dispatcher.add(Method(work, "work", idempotent=False, quick=False))
    lease.grant(5, FOREVER)
    caller: Any = Caller()
    dispatcher.accept(caller, request(1), None)
    dispatcher.accept(caller, request(2), None)
    await asyncio.sleep(0)
    assert begun == [0]
    lease.end()
    async with asyncio.timeout(5):
        await dispatcher.idle.wait()
    assert begun == [0]
    assert {number: said.kind for number, said in caller.got.items()} == {1: "failed", 2: "not_holder"}


async def test_an_answer_counts_only_under_the_epoch_of_its_question(lease: LeaseWriter, fence: Fence) -> None:
    def work() -> int:
        lease.grant(6, FOREVER)  # the next lease, while this was worked on
        return 1

    dispatcher = Dispatcher("A", "A-1", 1, 4)
    dispatcher.fence = fence
    dispatcher.attach(asyncio.get_running_loop())
    dispatcher.add(Method(work, "work", idempotent=False, quick=True))
    lease.grant(5, FOREVER)
    caller: Any = Caller()
    dispatcher.accept(caller, request(1), None)
    assert caller.got[1].kind == "failed"


@pytest.mark.parametrize("quick", [False, True])
async def test_a_call_works_under_the_epoch_that_it_was_accepted_under(
    lease: LeaseWriter, fence: Fence, quick: bool
) -> None:
    seen: list[int] = []

    def work() -> None:
        lease.end()
        seen.append(dispatcher.epoch_of_work)
        lease.grant(6, FOREVER)
        seen.append(dispatcher.epoch_of_work)

    dispatcher = Dispatcher("A", "A-1", 1, 4)
    dispatcher.fence = fence
    dispatcher.attach(asyncio.get_running_loop())
    dispatcher.add(Method(work, "work", idempotent=False, quick=quick))
    lease.grant(5, FOREVER)
    caller: Any = Caller()
    dispatcher.accept(caller, request(1), None)
    async with asyncio.timeout(5):
        await dispatcher.idle.wait()
    assert seen == [5, 5]
    assert dispatcher.epoch_of_work == 6


async def test_what_a_call_leaves_running_sees_the_epoch_that_is_held(lease: LeaseWriter, fence: Fence) -> None:
    ended = asyncio.Event()

    async def later() -> int:
        await ended.wait()
        return dispatcher.epoch_of_work

    left: list[asyncio.Task[int]] = []

    async def work() -> None:
        left.append(asyncio.create_task(later()))

    dispatcher = Dispatcher("A", "A-1", 1, 4)
    dispatcher.fence = fence
    dispatcher.attach(asyncio.get_running_loop())
    dispatcher.add(Method(work, "work", idempotent=False, quick=False))
    lease.grant(5, FOREVER)
    caller: Any = Caller()
    dispatcher.accept(caller, request(1), None)
    async with asyncio.timeout(5):
        await dispatcher.idle.wait()
        lease.end()
        ended.set()
        assert await left[0] == 0


def test_a_function_that_cannot_be_stopped_gets_the_time_to_stop(
    lease: LeaseWriter, fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    now = time.monotonic()
    monkeypatch.setattr(fence_module.time, "monotonic", lambda: now)
    lease.grant(5, FOREVER)
    lease.end()
    fence.overrun("work")
    assert killed == []
    now += STOP_S / 2
    lease.grant(6, FOREVER)
    fence.overrun("work")
    lease.end()
    now += STOP_S / 2
    fence.overrun("work")
    assert killed == []
    now += STOP_S * 1.01  # not STOP_S alone: a sum of floats may fall just short of it
    fence.overrun("work")
    assert killed == [(os.getpid(), signal.SIGKILL)]
