"""Members are asked and promise; what is asked fits into datagrams, and rubbish is no promise."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import pytest

from outrider.failover.failsafe import Failsafe


class Wire:
    """Between hosts in memory. `lost`: hosts that answer nothing; `sizes`: of what was asked."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[str, bytes], bytes | None]] = {}
        self.lost: set[str] = set()
        self.sizes: list[int] = []

    def end(self, host: str) -> End:
        return End(self, host)


class End:
    """One host's."""

    def __init__(self, wire: Wire, host: str) -> None:
        self.wire, self.host = wire, host

    async def ask(self, kind: str, payload: bytes, hosts: Iterable[str], timeout_s: float) -> dict[str, bytes]:
        self.wire.sizes.append(len(payload))
        answers = {host: self.wire.handlers[host](self.host, payload) for host in hosts if host not in self.wire.lost}
        return {host: answer for host, answer in answers.items() if answer is not None}

    def answer(self, kind: str, handler: Callable[[str, bytes], bytes | None]) -> None:
        self.wire.handlers[self.host] = handler


@pytest.fixture
def wire() -> Wire:
    return Wire()


def member(wire: Wire, host: str, promises: Callable[[str, str, int], bool]) -> Failsafe:
    return Failsafe(wire.end(host), lambda agent, holder, epoch, now: promises(agent, holder, epoch))


async def test_each_host_promises_for_each_lease_by_itself(wire: Wire) -> None:
    asker = member(wire, "h1", lambda *_: False)
    member(wire, "h2", lambda agent, holder, epoch: (agent, holder, epoch) == ("A", "A-1", 7))
    member(wire, "h3", lambda *_: True)
    found = await asker.ask_members({"A": ("A-1", 7), "B": ("B-1", 9)}, frozenset({"h2", "h3"}))
    assert found == {"h2": frozenset({"A"}), "h3": frozenset({"A", "B"})}


async def test_who_does_not_answer_or_answers_rubbish_promises_nothing(wire: Wire) -> None:
    asker = member(wire, "h1", lambda *_: False)
    member(wire, "h2", lambda *_: True)
    wire.lost.add("h2")
    wire.handlers["h3"] = lambda host, payload: b"\xc1"
    found = await asker.ask_members({"A": ("A-1", 7)}, frozenset({"h2", "h3"}))
    assert found == {"h2": frozenset(), "h3": frozenset()}


async def test_a_question_that_is_rubbish_is_not_answered(wire: Wire) -> None:
    member(wire, "h2", lambda *_: True)
    assert wire.handlers["h2"]("h1", b"\xc1") is None
    assert wire.handlers["h2"]("h1", msgspec.msgpack.encode({"A": 1})) is None


async def test_many_leases_are_asked_about_in_several_datagrams(wire: Wire) -> None:
    asker = member(wire, "h1", lambda *_: False)
    member(wire, "h2", lambda *_: True)
    wanted = {f"AnAgentWithALongishName{n}": (f"AnAgentWithALongishName{n}-1", 1795480000000 + n) for n in range(200)}
    found = await asker.ask_members(wanted, frozenset({"h2"}))
    assert found["h2"] == frozenset(wanted)
    assert len(wire.sizes) > 1
    assert max(wire.sizes) <= 1000
