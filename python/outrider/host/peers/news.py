"""What happened to instances: the own ones, told to everyone, and those of the others as heard. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct

from outrider.host.peers.wire import Beat, Item

# When each piece of news is told to everyone, in seconds after it was reported.
REPEATS_S = (0.0, 0.02, 0.06, 0.15)
# For so long it is in every heartbeat; what is still down then is told once a second.
CARRY_S = 5.0
TELL_S = 120.0
# A receiver believes it for so long after it was last told; Consul knows by then.
HOLD_S = 10.0

DETAIL_CHARS = 80
# Leaves room for the sender's name, the suspects and the code in a datagram of 1,200 bytes.
NEWS_BYTES = 600
SUSPECTS_BYTES = 280


class Evidence(Struct, frozen=True):
    """What peers know of other hosts: those that are voted down, and dead instances by (host, instance) to why.

    `lost`: those of the voted down whose kernel does not answer either.
    """

    hosts: frozenset[str] = frozenset()
    instances: Mapping[tuple[str, str], str] = {}
    lost: frozenset[str] = frozenset()


NO_EVIDENCE = Evidence()


class _Own(Struct):
    down: bool
    since: float
    reported: float
    detail: str
    sent: int = 0


class Outbox:
    """News of this host's instances. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._own: dict[str, _Own] = {}

    def report(self, instance: str, down: bool, since: float, detail: str, now: float) -> None:
        """An instance went down, or came back, at `since`. It replaces earlier news of that instance."""
        self._own[instance] = _Own(down, since, now, detail[:DETAIL_CHARS])

    def withdraw(self, instance: str) -> None:
        """Say no more of an instance that was taken away."""
        self._own.pop(instance, None)

    def due(self, now: float) -> list[Item]:
        """What everyone is to be told now."""
        return [self._item(name, own, now) for name, own in self._own.items() if self._counts_as_sent(own, now)]

    def next_due(self) -> float | None:
        """When `due` has something again."""
        moments = [own.reported + REPEATS_S[own.sent] for own in self._own.values() if own.sent < len(REPEATS_S)]
        return min(moments, default=None)

    def carried(self, now: float) -> list[Item]:
        """What is in each heartbeat."""
        return [self._item(name, own, now) for name, own in self._own.items() if now - own.reported < CARRY_S]

    def lasting(self, now: float) -> list[Item]:
        """What is told once a second: also what is down for longer. The rest is forgotten."""
        for name, own in list(self._own.items()):
            if now - own.reported >= (TELL_S if own.down else CARRY_S):
                del self._own[name]
        return [self._item(name, own, now) for name, own in self._own.items()]

    def _counts_as_sent(self, own: _Own, now: float) -> bool:
        before = own.sent
        while own.sent < len(REPEATS_S) and own.reported + REPEATS_S[own.sent] <= now:
            own.sent += 1
        return own.sent > before

    def _item(self, name: str, own: _Own, now: float) -> Item:
        return Item(name, own.down, round(max(now - own.since, 0.0), 3), own.detail)


class _Heard(Struct):
    detail: str
    since: float
    until: float


class Inbox:
    """Which instances of other hosts are down, by their own shims' word."""

    def __init__(self) -> None:
        self._down: dict[tuple[str, str], _Heard] = {}
        self.down: dict[tuple[str, str], str] = {}

    def hear(self, host: str, items: Iterable[Item], now: float) -> bool:
        """Take what a host's shim says of its instances. True if that changed what is known."""
        for item in items:
            if item.down:
                self._down[host, item.instance] = _Heard(item.detail, now - item.age_s, now + HOLD_S)
            else:
                self._down.pop((host, item.instance), None)
        return self._changed()

    def forget(self, host: str, instance: str, at: float) -> bool:
        """Something is known of an instance that was true at `at`. True if that was news."""
        return self._drop(lambda key, heard: key == (host, instance) and heard.since < at)

    def clear(self, host: str) -> bool:
        """The host's shim started anew and will tell all again. True if that changed what is known."""
        return self._drop(lambda key, _: key[0] == host)

    def expire(self, now: float) -> bool:
        """Forget what was not told again for too long. True if that changed what is known."""
        return self._drop(lambda _, heard: heard.until <= now)

    def _drop(self, ended: Callable[[tuple[str, str], _Heard], bool]) -> bool:
        self._down = {key: heard for key, heard in self._down.items() if not ended(key, heard)}
        return self._changed()

    def _changed(self) -> bool:
        now_down = {key: heard.detail for key, heard in self._down.items()}
        changed = now_down != self.down
        if changed:
            self.down = now_down
        return changed


def beats(suspects: Iterable[str], items: Iterable[Item]) -> Iterator[Beat]:
    """As many heartbeats as it takes to say it all, one at least."""
    named, space = [], SUSPECTS_BYTES
    # Who suspects more than fit is most likely cut off itself, and heard by nobody.
    for host in sorted(suspects):
        space -= len(host.encode()) + 2
        if space >= 0:
            named.append(host)
    part: list[Item] = []
    space = NEWS_BYTES
    for item in items:
        size = len(item.instance.encode()) + len(item.detail.encode()) + 16
        if part and size > space:
            yield Beat(tuple(named), tuple(part))
            part, space = [], NEWS_BYTES
        part.append(item)
        space -= size
    yield Beat(tuple(named), tuple(part))
