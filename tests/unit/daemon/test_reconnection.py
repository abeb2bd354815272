"""When Consul is asked anew after a host was lost, and its agent is shown another host."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from outrider.daemon import reconnection
from outrider.daemon.reconnection import REJOIN_TICKS, Reconnection
from outrider.errors import ConsulError


class Asked:
    """What a Reconnection asks for, counted."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.joined: list[str] = []
        self.joins = asyncio.Event()
        self.joins.set()

        def ask(name: str) -> Callable[[], None]:
            return lambda: self.count.update([name])

        self.tested = Reconnection(ask("leases"), (ask("feed"), ask("targets")), self.join)

    async def join(self, address: str) -> None:
        self.joined.append(address)
        await self.joins.wait()
        raise ConsulError("does not answer")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnection, "ASK_AGAIN_S", (0.01, 0.02))
    monkeypatch.setattr(reconnection, "SPREAD_S", 0.0)


async def counted(asked: Asked, **wanted: int) -> None:
    async with asyncio.timeout(10):
        while True:
            if asked.count == Counter(wanted):
                return
            await asyncio.sleep(0.005)


async def test_a_loss_asks_for_leases_at_once_and_for_the_rest_twice(quick: None) -> None:
    asked = Asked()
    asked.tested.lost_are(frozenset({"h1"}))
    assert asked.count == {"leases": 1}
    await counted(asked, leases=1, feed=2, targets=2)


async def test_who_comes_back_asks_for_nothing() -> None:
    asked = Asked()
    asked.tested.lost_are(frozenset({"h1"}))
    asked.tested.lost_are(frozenset())
    assert (asked.count, asked.tested.lost) == ({"leases": 1}, frozenset())
    asked.tested.stop()


async def test_votes_that_flap_ask_no_more_often(quick: None) -> None:
    asked = Asked()
    for _ in range(50):
        asked.tested.lost_are(frozenset({"h1"}))
        asked.tested.lost_are(frozenset())
    await counted(asked, leases=1, feed=2, targets=2)


async def test_a_short_loss_of_consul_joins_nobody_and_a_longer_one_once_at_a_time() -> None:
    asked = Asked()
    asked.joins.clear()
    for _ in range(3):
        for _ in range(REJOIN_TICKS - 1):
            asked.tested.reached(False, ["10.0.0.2"])
        asked.tested.reached(True, ["10.0.0.2"])
    for heard in ([], ["10.0.0.2"], ["10.0.0.2"], ["10.0.0.2"], ["10.0.0.2"]):
        asked.tested.reached(False, heard)
        await asyncio.sleep(0)
    assert asked.joined == ["10.0.0.2"]
    asked.joins.set()
    await asyncio.sleep(0.01)
    asked.tested.reached(False, ["10.0.0.3"])
    await asyncio.sleep(0)
    assert asked.joined == ["10.0.0.2", "10.0.0.3"]
