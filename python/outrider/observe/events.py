"""What happened to each instance, told from one picture of the fleet to the next. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

UNEXPLAINED = "died:"  # how it ended is known in a moment, and told then

Spot = tuple[str, str]
"""An instance and a host: while it moves it has two."""


class Event(Struct, frozen=True, omit_defaults=True):
    """One change.

    at: Unix seconds
    what: the new status (starting, passing, warning, critical, stopped, parked, missing); or holder and standby, for a
        lease that was got or lost; or placed and removed; or of this host's shim alone, without an agent: observing,
        consul lost, consul back
    epoch: of the lease, for holder
    lasted_s: how long the status, or the role, before it lasted; 0 if that is not known
    """

    at: float
    what: str
    agent: str = ""
    instance: str = ""
    host: str = ""
    why: str = ""
    epoch: int = 0
    lasted_s: float = 0.0


class Seen(Struct, frozen=True):
    """An instance as a shim knows it at one moment."""

    agent: str
    instance: str
    host: str
    status: str
    role: str
    epoch: int = 0
    detail: str = ""

    @property
    def serves(self) -> bool:
        """Whether callers are sent to it."""
        return self.status in ("passing", "warning") and self.role != "standby"


class Since(Struct):
    """An instance as it was last told, and since when status and role are so, in Unix seconds; 0 for not known."""

    seen: Seen
    status_at: float = 0.0
    role_at: float = 0.0


class Teller:
    """Tells changes. The first picture tells nothing: how long it has been so, nobody here knows."""

    def __init__(self) -> None:
        self._known: dict[Spot, Since] = {}
        self._begun = False

    def look(self, picture: Iterable[Seen], now: float) -> list[Event]:
        """The changes since the last picture, at Unix time `now`."""
        found = {(seen.instance, seen.host): seen for seen in picture}
        events = list(self._changes(found, now)) if self._begun else []
        if not self._begun:
            self._known = {spot: Since(seen) for spot, seen in found.items()}
        self._begun = True
        return events

    def look_at(self, seen: Seen, now: float) -> list[Event]:
        """The changes of one instance, told at once: it may be otherwise again before the next picture."""
        return list(self._change((seen.instance, seen.host), seen, now)) if self._begun else []

    def _changes(self, found: Mapping[Spot, Seen], now: float) -> Iterator[Event]:
        for spot in sorted(self._known.keys() - found.keys()):
            gone = self._known.pop(spot)
            yield _event("removed", gone.seen, now, gone.status_at)
        for spot, seen in sorted(found.items()):
            yield from self._change(spot, seen, now)

    def _change(self, spot: Spot, seen: Seen, now: float) -> Iterator[Event]:
        known = self._known.get(spot)
        if known is None:
            self._known[spot] = Since(seen, now, now)
            yield _event("placed", seen, now, 0.0)
            return
        if seen == known.seen or seen.detail.startswith(UNEXPLAINED):
            return
        if seen.status != known.seen.status:
            yield _event(seen.status, seen, now, known.status_at)
            known.status_at = now
        if (seen.role, seen.epoch) != (known.seen.role, known.seen.epoch) and seen.role in ("holder", "standby"):
            yield _event(seen.role, seen, now, known.role_at)
            known.role_at = now
        known.seen = seen


def _event(what: str, seen: Seen, now: float, since: float) -> Event:
    lasted_s = round(now - since, 3) if since else 0.0
    epoch = seen.epoch if what == "holder" else 0
    why = "" if seen.detail in ("ok", seen.status) else seen.detail
    return Event(now, what, seen.agent, seen.instance, seen.host, why, epoch, lasted_s)
