"""Who is killed for being silent, who is not, and how soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from outrider.host.care import KILL_EVERY_S, Care, Silent
from outrider.host.starvation import Usage


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Instance:
    """Notes that it was killed, and when."""

    def __init__(self, pid: int, loop: asyncio.AbstractEventLoop) -> None:
        self.pid: int | None = pid
        self.grown_up = True
        self.killed: asyncio.Future[tuple[str, float]] = loop.create_future()
        self._loop = loop

    async def kill(self, why: str) -> None:
        self.killed.set_result((why, self._loop.time()))


class Host:
    """Twelve instances. `late`: the shim's loop was; `usage`: what /proc would say of any process."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.instances = {f"Echo-{number}": Instance(number, loop) for number in range(1, 13)}
        self.late = False
        self.usage = (0.0, False)
        self.care = Care(lambda: self.instances, lambda _: self.late, usage=lambda _, at: Usage(at, *self.usage))

    def hang(self, *numbers: int) -> None:
        """They are silent for the second time."""
        for number in numbers:
            if self.care.silent(f"Echo-{number}", 0.0):
                self.care.hung(f"Echo-{number}", "GET /health: no answer")

    async def killed(self) -> set[int]:
        """Who is killed until long after it was due."""
        await asyncio.sleep(3 * KILL_EVERY_S)
        return {i.pid for i in self.instances.values() if i.pid and i.killed.done()}


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    made = Host()
    yield made
    made.care.stop()


async def test_one_that_hangs_is_killed_at_once(host: Host) -> None:
    host.hang(1)
    async with asyncio.timeout(0.2):
        why, _ = await host.instances["Echo-1"].killed
    assert why == "GET /health: no answer"
    assert host.care.kills == 1


async def test_two_that_hang_are_killed_one_after_the_other(host: Host) -> None:
    host.hang(1, 2)
    assert await host.killed() == {1, 2}
    first, second = (host.instances[f"Echo-{number}"].killed.result()[1] for number in (1, 2))
    assert second - first >= KILL_EVERY_S - 0.01


async def test_many_at_once_are_the_hosts_trouble_and_said_once(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(1, 5):
        host.care.silent(f"Echo-{number}", 0.0)  # the first time: no verdict yet, but it counts
    host.hang(1, 2, 3, 4)
    host.hang(1, 2, 3, 4)
    assert await host.killed() == set()
    said = [record.getMessage() for record in caplog.records]
    assert said == ["4 of 12 instances are silent at once: that is this host rather than they, none is killed"]


async def test_three_of_twelve_are_not_many(host: Host) -> None:
    host.hang(1, 2, 3)
    assert await host.killed() == {1, 2, 3}


async def test_silence_while_the_shim_was_late_is_not_believed(host: Host) -> None:
    host.late = True
    assert not host.care.silent("Echo-1", 0.0)
    host.late = False
    assert host.care.silent("Echo-1", 0.0)
    assert host.care.doubted == 1


async def test_silence_of_a_process_that_got_no_cpu_is_not_believed(host: Host) -> None:
    host.usage = (5.0, True)
    assert host.care.silent("Echo-1", 0.0), "nothing to compare it with"
    host.usage = (5.01, True)
    assert not host.care.silent("Echo-1", 0.0)
    host.usage = (5.2, True)
    assert host.care.silent("Echo-1", 0.0), "it ran, and did not answer"
    host.usage = (5.2, False)
    assert host.care.silent("Echo-1", 0.0), "it does not even want to run"


async def test_who_answers_before_its_turn_comes_lives(host: Host) -> None:
    host.hang(1, 2)
    await host.instances["Echo-1"].killed
    host.care.answered("Echo-2")
    assert await host.killed() == {1}


async def test_who_is_still_starting_or_dead_is_not_killed(host: Host) -> None:
    host.instances["Echo-1"].grown_up = False
    host.hang(1, 2)
    host.care.died("Echo-2")
    assert await host.killed() == set()
    assert host.care.kills == 0


def test_silences_far_apart_are_no_event() -> None:
    silent = Silent()
    for at, name in enumerate(("A", "B", "C")):
        silent.note(name, float(at))
    assert silent.mass(9, 2.0) == 3
    assert silent.mass(10, 2.0) == 0
    assert silent.mass(3, 2.5) == 0
