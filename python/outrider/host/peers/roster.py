"""Which hosts there are, where, and who watches whom: the same on every host that knows the same names. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

# With up to six hosts everyone watches everyone.
WATCHERS = 5
# A host that Consul does not list is known for so long after it was heard.
HEARD_S = 60.0


def watchers_of(host: str, hosts: Iterable[str]) -> tuple[str, ...]:
    """The hosts that a host's heartbeats go to: of all others the ones with the highest hash of both names."""
    others = (other for other in hosts if other != host)
    return tuple(sorted(others, key=lambda other: _weight(host, other), reverse=True)[:WATCHERS])


def _weight(host: str, other: str) -> bytes:
    return hashlib.sha256(f"{host}\0{other}".encode()).digest()


class Roster:
    """Hosts by Consul's word and, while Consul is away or was wiped, those that were heard of late."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._heard: dict[str, tuple[str, float]] = {}
        self._declared: Mapping[str, str] = {}
        self.addresses: dict[str, str] = {}  # without this host
        self.watchers: tuple[str, ...] = ()
        self.watched: dict[str, tuple[str, ...]] = {}  # each other host to those that watch it

    def heard(self, host: str, address: str, now: float) -> None:
        """A host told something from an address. Only its own datagrams say where it is, so only they are believed."""
        new = host not in self.addresses
        self._heard[host] = (address, now)
        if new:
            self._list(now)

    def update(self, declared: Mapping[str, str], now: float) -> None:
        """Take what Consul says now. Cheap when nothing changed."""
        aged = any(at + HEARD_S < now and host not in declared for host, (_, at) in self._heard.items())
        if declared != self._declared or aged:
            self._declared = dict(declared)
            self._list(now)

    def _list(self, now: float) -> None:
        self._heard = {host: seen for host, seen in self._heard.items() if seen[1] + HEARD_S >= now}
        known = {host: address for host, (address, _) in self._heard.items()} | dict(self._declared)
        known.pop(self._host, None)
        self.addresses = known
        everyone = sorted({*known, self._host})
        self.watchers = watchers_of(self._host, everyone)
        self.watched = {host: watchers_of(host, everyone) for host in known}
