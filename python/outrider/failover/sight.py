"""Since when hosts are lost or well and instances pass, as one observer saw it on its own clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from outrider.discovery.feed import View
from outrider.failover.placer import Picture, Spot
from outrider.registry.layout import SHIM, TAG
from outrider.registry.leases import LeaseDoc
from outrider.registry.services import CheckState

K = TypeVar("K")
GOSSIP = "serfHealth"
# A Consul that was wiped or restored is without hosts until each has registered again.
ABSENT_S = 10.0
# A host that its peers hear has lost its Consul agent, not its life: what runs there runs, and the agent may come back.
# More than a minute, which is what Consul's leader may take after a loss of quorum to see that a server is back.
HEARD_S = 75.0


class Sight:
    """`update` it whenever the view may have changed. Times are of the caller's monotonic clock."""

    def __init__(self) -> None:
        self.lost: dict[str, float] = {}
        self.well: dict[str, float] = {}
        self.passing: dict[Spot, float] = {}
        self._failed: dict[str, float] = {}
        self._absent: dict[str, float] = {}

    def update(self, view: View, now: float, heard: frozenset[str] = frozenset()) -> None:
        """Take note of what is so now, and forget since when something was so that no longer is.

        `heard`: hosts whose shims speak to this one.
        """
        hosts = view.hosts.keys()
        failed = {check.node for check in view.critical if check.check_id == GOSSIP}
        self._failed = _kept(self._failed, hosts & failed, now)
        self._absent = _kept(self._absent, hosts - view.nodes if view.nodes else (), now)
        absent = {host: since for host, since in self._absent.items() if now - since >= ABSENT_S}
        silent = {h: at for h, at in self._failed.items() if h not in heard or now - at >= HEARD_S}
        self.lost = absent | silent
        self.well = _kept(self.well, hosts - self._failed.keys() - self._absent.keys(), now)
        self.passing = _kept(self.passing, _passing(view), now)

    def picture(
        self,
        view: View,
        now: float,
        starting: Iterable[Spot] = (),
        leases: Mapping[str, LeaseDoc] | None = None,
        wall: float = 0.0,
    ) -> Picture:
        """What decisions follow from."""
        return Picture(
            view.agents,
            view.placements,
            view.hosts,
            now,
            lost=dict(self.lost),
            well=dict(self.well),
            trouble=_trouble(view),
            passing=dict(self.passing),
            starting=frozenset(starting) - self.passing.keys(),
            leases=leases or {},
            wall=wall,
        )


def _kept(before: Mapping[K, float], now_so: Iterable[K], now: float) -> dict[K, float]:
    return {key: before.get(key, now) for key in now_so}


def _trouble(view: View) -> dict[str, str]:
    """A host without a working shim starts nothing."""
    found = {
        host: "has no shim"
        for host, members in view.members.items()
        if not any(service.name == SHIM for service in members)
    }
    found |= {check.node: f"its check {check.check_id} is critical" for check in view.critical if _of_host(check)}
    return found | {host: "is not in Consul's catalog" for host in view.hosts if host not in view.nodes}


def _of_host(check: CheckState) -> bool:
    return not check.service_id and check.check_id != GOSSIP


def _passing(view: View) -> list[Spot]:
    nodes = {check.node for check in view.critical if not check.service_id}
    ill = {(check.service_id, check.node) for check in view.critical if check.service_id}
    return [
        (service.id, node)
        for node, members in view.members.items()
        if node not in nodes
        for service in members
        if TAG in service.tags and (service.id, node) not in ill
    ]
