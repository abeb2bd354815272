"""The peers of a shim: one UDP socket, one timer for all heartbeats. What is decided is decided in the other files."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from outrider.host.peers.line import Line
from outrider.host.peers.news import Evidence, Inbox, Outbox, beats
from outrider.host.peers.questions import Handler, Questions
from outrider.host.peers.roster import Roster
from outrider.host.peers.votes import Votes, to_next_beat
from outrider.host.peers.wire import Answer, Beat, Bye, Codec, Item, Message, Packet, Question

log = logging.getLogger("outrider.peers")

# Every so many heartbeats, who has something to tell tells it to all, not just to those that watch it.
TO_ALL = 10
# A change of vote is told like news: at once, and again in case that a datagram is lost.
VOTE_REPEATS_S = (0.02, 0.06, 0.15)


class Peers:
    """Tells the other shims that this one lives and what died here, and knows what they tell. Lives on the loop.

    hosts: every host of the fleet to its address, as Consul has it; may lack some, may name this one
    changed: called when `evidence` changed
    started: Unix nanoseconds of this start, later than any earlier one of this host (`next_start`)
    """

    def __init__(
        self,
        host: str,
        key: bytes,
        bind_address: str,
        port: int,
        hosts: Callable[[], Mapping[str, str]],
        changed: Callable[[], None],
        *,
        started: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host, self._bind, self._port = host, bind_address, port
        self._hosts, self._changed, self._clock = hosts, changed, clock
        self.line = Line(Codec(key, host, started or time.time_ns()), self._take, clock)
        self._roster = Roster(host)
        self._votes = Votes(host)
        self._outbox, self._inbox = Outbox(), Inbox()
        self._questions = Questions(self._send)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._beats = 0
        self._down: frozenset[str] = frozenset()

    async def start(self) -> None:
        """Listen and begin to beat. Raises HostError if the address cannot be had."""
        await self.line.start(self._bind, self._port)
        self._beat()

    async def stop(self) -> None:
        """Say that the silence to come is meant, and close."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for _ in range(3):
            self._send(Bye(), self._roster.addresses)
        await self.line.close()

    @property
    def down_hosts(self) -> frozenset[str]:
        """Hosts that the majority of those that watch them do not hear."""
        return self._down

    @property
    def heard_hosts(self) -> frozenset[str]:
        """Hosts whose shims were heard a moment ago."""
        return self._votes.alive(self._clock())

    @property
    def down_instances(self) -> Mapping[tuple[str, str], str]:
        """Instances that are down by their own host's word, (host, instance) to why."""
        return self._inbox.down

    @property
    def evidence(self) -> Evidence:
        """Both, for routing."""
        return Evidence(self._down, self._inbox.down)

    @property
    def doubts(self) -> int:
        """How often this shim ran so late that it did not trust what it had not heard."""
        return self._votes.doubts

    @property
    def known(self) -> int:
        """How many other hosts there are."""
        return len(self._roster.addresses)

    def report(self, instance: str, down: bool, since: float, detail: str) -> None:
        """An instance of this host went down or came back at `since` (this clock): all hosts are told, now."""
        now = self._clock()
        self._outbox.report(instance, down, since, detail, now)
        self._tell(now)

    def withdraw(self, instance: str) -> None:
        """Say no more of an instance that this host has no longer."""
        self._outbox.withdraw(instance)

    def forget(self, host: str, instance: str, at: float) -> None:
        """Consul said at `at` (this clock) how an instance is: earlier news of it count no more."""
        if self._inbox.forget(host, instance, at):
            self._changed()

    def answer(self, kind: str, handler: Handler) -> None:
        """Answer other shims' questions of a kind: `handler` gets host and payload, and may be asked twice."""
        self._questions.answer(kind, handler)

    async def ask(self, kind: str, payload: bytes, hosts: Iterable[str], timeout_s: float) -> dict[str, bytes]:
        """Ask hosts, at most 1,000 bytes, and return what they answered within `timeout_s`, by host."""
        return await self._questions.ask(kind, payload, hosts, timeout_s)

    def _take(self, packet: Packet, address: str, anew: bool) -> None:
        now = self._clock()
        self._roster.heard(packet.host, address, now)
        before = self._votes.suspects
        news = anew and self._inbox.clear(packet.host)
        match packet.message:
            case Beat(suspects=suspects, news=items):
                self._votes.heard(packet.host, suspects, now)
                news |= self._inbox.hear(packet.host, items, now)
            case Bye():
                self._votes.bye(packet.host)
            case Question() as question:
                if answer := self._questions.asked(packet.host, question):
                    self._send(answer, (packet.host,))
            case Answer() as answer:
                self._questions.answered(packet.host, answer)
        self._judged(before, now, news)

    def _judged(self, before: frozenset[str], now: float, news: bool) -> None:
        """After anything that may change a vote: tell the own ones, and say when the outcome changed."""
        if self._votes.suspects != before:
            self._say("suspects", self._votes.suspects - before, before - self._votes.suspects)
            self._tell_votes()
            for number, delay in enumerate(VOTE_REPEATS_S):
                self._later(f"votes {number}", delay, self._tell_votes)
        down = self._votes.down(self._roster.watched, now)
        if down != self._down:
            self._say("takes out of routing", down - self._down, self._down - down)
            self._down, news = down, True
        if news:
            self._changed()

    def _say(self, what: str, more: Iterable[str], fewer: Iterable[str]) -> None:
        for host in sorted(more):
            log.warning("peers: %s %s host %s, which is not heard", self._host, what, host)
        for host in sorted(fewer):
            log.info("peers: %s no longer %s host %s", self._host, what, host)

    def _beat(self) -> None:
        now = self._clock()
        self._later("beat", to_next_beat(time.time()), self._beat)
        self._roster.update(self._hosts(), now)
        before = self._votes.suspects
        self._votes.tick(self._roster.watched, now)
        self._judged(before, now, self._inbox.expire(now))
        self._beats += 1
        if self._beats % TO_ALL == 0:
            items = self._outbox.lasting(now)
            told = items or self._votes.suspects
            self._send_beats(items, self._roster.addresses if told else self._roster.watchers)
        else:
            self._send_beats(self._outbox.carried(now), self._roster.watchers)

    def _tell(self, now: float) -> None:
        """Send everyone the news that are due, and come back for the next."""
        if items := self._outbox.due(now):
            self._send_beats(items, self._roster.addresses)
        if (due := self._outbox.next_due()) is not None:
            self._later("news", max(due - now, 0.0), lambda: self._tell(self._clock()))

    def _tell_votes(self) -> None:
        self._send_beats((), self._roster.addresses)

    def _send_beats(self, items: Iterable[Item], hosts: Iterable[str]) -> None:
        for beat in beats(self._votes.suspects, items):
            self._send(beat, hosts)

    def _send(self, message: Message, hosts: Iterable[str]) -> None:
        addresses = self._roster.addresses
        self.line.send(message, [addresses[host] for host in hosts if host in addresses])

    def _later(self, name: str, delay_s: float, call: Callable[[], None]) -> None:
        """One timer for each name: a later one replaces an earlier one."""
        if timer := self._timers.get(name):
            timer.cancel()
        self._timers[name] = asyncio.get_running_loop().call_later(delay_s, call)
