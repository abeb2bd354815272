"""A host that is voted down is lost only when nothing answers there; its kernel's word is asked on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator

import pytest

from outrider.host.peers import lost
from outrider.host.peers.lost import UNANSWERED, Door, LostHosts, answers

DOORS = [("10.0.0.2", 7200), ("10.0.0.2", 7201)]


class Street:
    """Hosts that answer as the test says; `knocked`: where, and how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lost, "AGAIN_S", 0.0)
        self.silent, self.knocked, self.changes = True, list[Door](), list[frozenset[str]]()
        self.doors = DOORS
        self._moved = asyncio.Event()
        self.hosts = LostHosts(lambda host: self.doors, self._changed, self._knock)

    def _changed(self) -> None:
        self.changes.append(self.hosts.hosts)
        self._moved.set()

    async def _knock(self, door: Door) -> bool:
        await asyncio.sleep(0)
        self.knocked.append(door)
        self._moved.set()
        return not self.silent

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._moved.clear()
                await self._moved.wait()

    async def knocks(self, count: int) -> None:
        """So many more."""
        end = len(self.knocked) + count
        await self.until(lambda: len(self.knocked) == end)


@pytest.fixture
def street(monkeypatch: pytest.MonkeyPatch) -> Street:
    return Street(monkeypatch)


async def test_a_host_is_lost_when_no_port_of_it_answers_several_times_in_a_row(street: Street) -> None:
    street.hosts.follow({"b"})
    await street.knocks(UNANSWERED - 1)
    assert street.hosts.hosts == frozenset()
    await street.until(lambda: street.hosts.hosts == {"b"})
    assert street.changes == [{"b"}]
    assert set(street.knocked) == set(DOORS)
    street.hosts.follow({"b", "c"})
    await street.until(lambda: street.hosts.hosts == {"b", "c"})
    street.hosts.follow(())


async def test_one_whose_shim_alone_is_silent_is_not_lost_until_it_is(street: Street) -> None:
    street.silent = False
    street.hosts.follow({"b"})
    await street.knocks(3 * UNANSWERED)
    assert (street.hosts.hosts, street.changes) == (frozenset(), [])
    street.silent = True
    await street.until(lambda: street.hosts.hosts == {"b"})
    street.silent = False
    await street.until(lambda: not street.hosts.hosts)
    street.hosts.follow(())


async def test_one_answer_starts_the_count_anew(street: Street) -> None:
    street.hosts.follow({"b"})
    for _ in range(5):
        await street.knocks(UNANSWERED - 2)
        street.silent = False
        await street.knocks(1)
        street.silent = True
    assert street.changes == []
    street.hosts.follow(())


async def test_who_is_heard_again_is_not_lost_and_not_asked_any_more(street: Street) -> None:
    street.hosts.follow({"b"})
    await street.until(lambda: street.hosts.hosts == {"b"})
    street.hosts.follow(())
    assert street.hosts.hosts == frozenset()
    count = len(street.knocked)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(street.knocked) == count


async def test_a_host_without_a_port_is_never_lost(street: Street) -> None:
    street.doors = []
    street.hosts.follow({"b"})
    for _ in range(100):
        await asyncio.sleep(0)
    assert (street.hosts.hosts, street.knocked) == (frozenset(), [])
    street.hosts.follow(())


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        yield sock


async def test_a_kernel_answers_for_processes_that_stand_still_or_are_gone() -> None:
    with listening() as sock:
        door = sock.getsockname()
        assert await answers(door)  # nobody accepts it
    assert await answers(door)  # refused


async def test_no_answer_is_known_as_such() -> None:
    with listening() as sock, contextlib.ExitStack() as held:
        # Once its queue is full the kernel drops whatever else comes, as if there was nobody.
        for _ in range(4):
            one = held.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(sock.getsockname())
        assert not await answers(sock.getsockname())


@pytest.mark.parametrize(
    ("code", "answered"), [(errno.EMFILE, True), (errno.ENETUNREACH, True), (errno.EHOSTUNREACH, False)]
)
async def test_trouble_of_our_own_says_nothing_of_the_host(
    monkeypatch: pytest.MonkeyPatch, code: int, answered: bool
) -> None:
    monkeypatch.setattr(lost, "KNOCK_S", 0.0)

    def fails(self: socket.socket, where: object) -> int:
        return code

    monkeypatch.setattr(socket.socket, "connect_ex", fails)
    assert await answers(("127.0.0.1", 1)) is answered
