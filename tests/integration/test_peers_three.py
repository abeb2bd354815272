"""Three peers with real sockets on three loopback addresses: one falls silent, lies, or is heard by half."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from integration.conftest import free_ports
from outrider.errors import HostError
from outrider.host.peers import Peers
from outrider.host.peers.line import Line

HOSTS = {f"gpu{n}": f"127.0.0.{n}" for n in (1, 2, 3)}
KEY = bytes(range(32))


class Three:
    """The peers of three hosts, and how to break the lines between them."""

    def __init__(self) -> None:
        self.port = free_ports(1)[0]
        self.changes = 0
        self.peers = {host: self.made(host) for host in HOSTS}

    def made(self, host: str, key: bytes = KEY) -> Peers:
        return Peers(host, key, HOSTS[host], self.port, lambda: HOSTS, self._changed)

    def __getitem__(self, host: str) -> Peers:
        return self.peers[host]

    def _changed(self) -> None:
        self.changes += 1

    def cut(self, sender: str, receiver: str) -> None:
        """From here on nothing of `sender` reaches `receiver`; the other way is open."""
        line = self[receiver].line
        take = Line.datagram_received.__get__(line)
        earlier: Callable[[bytes, tuple[str, int]], None] = vars(line).get("datagram_received", take)

        def filtered(data: bytes, addr: tuple[str, int]) -> None:
            if addr[0] != HOSTS[sender]:
                earlier(data, addr)

        line.datagram_received = filtered  # type: ignore[method-assign]

    async def silence(self, host: str) -> None:
        """As if the host had lost its power."""
        self[host]._timers.pop("beat").cancel()
        await self[host].line.close()

    async def all_know_each_other(self) -> None:
        await until(lambda: all(peers.line.received > 6 for peers in self.peers.values()))


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> float:
    """Seconds until the condition held. Fails if that takes too long."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, "it did not come true"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


@pytest.fixture
async def three() -> AsyncIterator[Three]:
    made = Three()
    for peers in made.peers.values():
        await peers.start()
    yield made
    for peers in made.peers.values():
        await peers.stop()


async def test_a_silent_host_is_voted_down_and_is_back_when_it_is_heard(three: Three) -> None:
    await three.all_know_each_other()
    await three.silence("gpu3")
    took = await until(lambda: three["gpu1"].down_hosts == three["gpu2"].down_hosts == {"gpu3"})
    assert took > 0.35
    three.peers["gpu3"] = three.made("gpu3")
    await three["gpu3"].start()
    assert await until(lambda: not three["gpu1"].down_hosts and not three["gpu2"].down_hosts) < 1.0
    assert three["gpu3"].down_hosts == frozenset()


async def test_who_is_heard_by_one_of_two_stays(three: Three) -> None:
    await three.all_know_each_other()
    three.cut("gpu3", "gpu1")
    await until(lambda: three["gpu1"]._votes.suspects == {"gpu3"})
    # The other watcher has heard of the vote and goes on hearing the host.
    await until(lambda: three["gpu2"]._votes._votes["gpu1"][0] == {"gpu3"})
    assert [peers.down_hosts for peers in three.peers.values()] == [frozenset()] * 3


async def test_who_is_cut_off_takes_nobody_out(three: Three) -> None:
    await three.all_know_each_other()
    for other in ("gpu2", "gpu3"):
        three.cut(other, "gpu1")
        three.cut("gpu1", other)
    await until(lambda: three["gpu2"].down_hosts == three["gpu3"].down_hosts == {"gpu1"})
    await until(lambda: three["gpu1"]._votes.suspects == {"gpu2", "gpu3"})
    assert three["gpu1"].down_hosts == frozenset()


async def test_a_death_is_known_everywhere_at_once_and_so_is_the_recovery(three: Three) -> None:
    await three.all_know_each_other()
    three["gpu1"].report("Echo-1", True, time.monotonic(), "exited: signal 9")
    known = {("gpu1", "Echo-1"): "exited: signal 9"}
    assert await until(lambda: three["gpu2"].down_instances == three["gpu3"].down_instances == known) < 0.5
    assert three["gpu2"].evidence.instances == known
    three["gpu1"].report("Echo-1", False, time.monotonic(), "")
    assert await until(lambda: not three["gpu2"].down_instances and not three["gpu3"].down_instances) < 0.5
    assert three.changes == 4


async def test_news_gets_through_though_most_datagrams_are_lost(three: Three) -> None:
    await three.all_know_each_other()
    line = three["gpu2"].line
    seen: list[str] = []

    def every_fourth(data: bytes, addr: tuple[str, int]) -> None:
        seen.append(addr[0])
        if seen.count(addr[0]) % 4 == 0:
            Line.datagram_received(line, data, addr)

    line.datagram_received = every_fourth  # type: ignore[method-assign]
    three["gpu1"].report("Echo-1", True, time.monotonic(), "died")
    await until(lambda: ("gpu1", "Echo-1") in three["gpu2"].down_instances, timeout_s=2.0)


async def test_a_shim_that_starts_anew_clears_what_it_told(three: Three) -> None:
    await three.all_know_each_other()
    three["gpu1"].report("Echo-1", True, time.monotonic(), "died")
    await until(lambda: bool(three["gpu2"].down_instances))
    await three.silence("gpu1")
    three.peers["gpu1"] = three.made("gpu1")
    await three["gpu1"].start()
    await until(lambda: not three["gpu2"].down_instances)


async def test_who_stops_on_purpose_is_not_missed(three: Three) -> None:
    await three.all_know_each_other()
    await three["gpu3"].stop()
    await three.silence("gpu2")
    # Both are silent for as long; one said that it would be.
    await until(lambda: three["gpu1"]._votes.suspects == {"gpu2"})
    assert "gpu3" not in three["gpu1"]._votes.suspects


async def test_another_key_is_refused_counted_and_changes_nothing(
    three: Three, caplog: pytest.LogCaptureFixture
) -> None:
    await three.all_know_each_other()
    await three.silence("gpu3")
    stranger = three.peers["gpu3"] = three.made("gpu3", bytes(32))
    await stranger.start()
    stranger.report("Echo-1", True, time.monotonic(), "died")
    await until(lambda: three["gpu1"].line.drops.counts["key"] > 5)
    assert three["gpu1"].down_instances == {}
    # Its heartbeats are nobody's, so that the host it says it is is still missed.
    await until(lambda: three["gpu1"].down_hosts == {"gpu3"})
    said = [record.getMessage() for record in caplog.records if "this fleet's key" in record.getMessage()]
    assert len(said) <= 3  # one for each peer


async def test_garbage_and_copies_are_dropped_and_counted(three: Three) -> None:
    await three.all_know_each_other()
    line, taken = three["gpu1"].line, []

    def recorded(data: bytes, addr: tuple[str, int]) -> None:
        taken.append(data)
        Line.datagram_received(line, data, addr)

    line.datagram_received = recorded  # type: ignore[method-assign]
    await until(lambda: bool(taken))
    where = (HOSTS["gpu1"], three.port)
    assert three["gpu2"].line._transport
    for data in (taken[0], b"\x01" + bytes(100), bytes(100), b"x" * 3000):
        three["gpu2"].line._transport.sendto(data, where)
    counts = line.drops.counts
    await until(lambda: (counts["replay"], counts["key"], counts["version"], counts["size"]) == (1, 1, 1, 1))


async def test_questions_are_answered_by_who_knows_and_in_time(three: Three) -> None:
    await three.all_know_each_other()
    asked: list[tuple[str, bytes]] = []

    def handler(host: str, payload: bytes) -> bytes:
        asked.append((host, payload))
        return payload.upper()

    three["gpu2"].answer("lease", handler)
    three["gpu3"].answer("lease", lambda host, payload: None)
    began = time.monotonic()
    assert await three["gpu1"].ask("lease", b"mine", ["gpu2", "gpu3", "nobody"], 0.3) == {"gpu2": b"MINE"}
    assert time.monotonic() - began < 5.0
    assert set(asked) == {("gpu1", b"mine")}
    # When all have answered nobody waits for the time to pass.
    began = time.monotonic()
    assert await three["gpu1"].ask("lease", b"mine", ["gpu2"], 20.0) == {"gpu2": b"MINE"}
    assert time.monotonic() - began < 5.0


async def test_a_lost_question_is_asked_again_and_a_defect_is_no_answer(three: Three) -> None:
    await three.all_know_each_other()
    line, lost = three["gpu2"].line, []

    def lose_first(data: bytes, addr: tuple[str, int]) -> None:
        if b"lease" in data and not lost:
            lost.append(data)
        else:
            Line.datagram_received(line, data, addr)

    line.datagram_received = lose_first  # type: ignore[method-assign]
    three["gpu2"].answer("lease", lambda host, payload: b"yes")
    three["gpu3"].answer("lease", lambda host, payload: bytes(1 // 0))
    assert await three["gpu1"].ask("lease", b"", ["gpu2", "gpu3"], 1.0) == {"gpu2": b"yes"}
    assert len(lost) == 1
    with pytest.raises(ValueError, match="1000 fit"):
        await three["gpu1"].ask("lease", bytes(1001), ["gpu2"], 1.0)


async def test_without_consul_who_is_heard_is_spoken_to(three: Three) -> None:
    """A shim that restarts while Consul is away is told of by the others' heartbeats."""
    await three.all_know_each_other()
    await three["gpu3"].stop()
    alone = three.peers["gpu3"] = Peers("gpu3", KEY, HOSTS["gpu3"], three.port, dict, lambda: None)
    await alone.start()
    await until(lambda: alone.known == 2)
    three["gpu2"].answer("lease", lambda host, payload: b"yes")
    assert await alone.ask("lease", b"", ["gpu2"], 2.0) == {"gpu2": b"yes"}


async def test_a_taken_port_is_said(three: Three) -> None:
    with pytest.raises(HostError, match=r"cannot listen on UDP 127\.0\.0\.1"):
        await three.made("gpu1").start()
