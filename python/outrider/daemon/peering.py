"""The shim's peers, where a key is configured: what they are told of this host, and what routing learns from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec.structs import replace

from outrider.discovery.routing import Evidence
from outrider.host import peers
from outrider.host.config import Config
from outrider.host.peers import NO_EVIDENCE, Peers
from outrider.host.peers.lost import Door, LostHosts
from outrider.host.publisher import local_evidence
from outrider.host.state import Local
from outrider.registry.services import CheckState

WELL = ("passing", "warning")


class Peering:
    """Speaks to the peers if there is a key, and is silent if there is none.

    hosts: every host of the fleet to its address
    doors: where a host takes connections, by which it is known to live though its shim is not heard
    changed: called when `evidence` changed
    """

    def __init__(
        self,
        config: Config,
        hosts: Callable[[], Mapping[str, str]],
        doors: Callable[[str], Sequence[Door]],
        changed: Callable[[], None],
    ) -> None:
        self.peers: Peers | None = None
        self._changed = changed
        self._lost = LostHosts(doors, changed)
        self._told: dict[str, Evidence] = {}
        self._critical: dict[tuple[str, str], float] = {}  # since when Consul says so, on the monotonic clock
        if config.peers_key_file:
            key = peers.read_key(config.peers_key_file)
            started = peers.next_start(config.state_dir / "peers-started")
            self.peers = Peers(
                config.host, key, config.address, config.peers_port, hosts, self._heard_news, started=started
            )

    @property
    def evidence(self) -> peers.Evidence:
        """What the peers know of other hosts."""
        return replace(self.peers.evidence, lost=self._lost.hosts) if self.peers else NO_EVIDENCE

    @property
    def heard(self) -> frozenset[str]:
        """Hosts whose shims speak to this one now."""
        return self.peers.heard_hosts if self.peers else frozenset()

    async def start(self) -> None:
        """Listen and beat. Raises HostError if the address cannot be had."""
        if self.peers:
            await self.peers.start()

    async def stop(self) -> None:
        """Say that the silence to come is meant."""
        self._lost.follow(())
        if self.peers:
            await self.peers.stop()

    def _heard_news(self) -> None:
        if self.peers:
            self._lost.follow(self.peers.down_hosts)
        self._changed()

    def tell(self, local: Local) -> None:
        """An instance of this host changed: tell the others, if it is a change for their routing."""
        now, told = local_evidence(local), self._told.get(local.instance)
        is_up, was_up = now in WELL, told is None or told in WELL
        # One that starts for the first time was not routed to, so nobody must be told that it is not ready yet.
        unknown = told is None and local.status in ("starting", "missing")
        if self.peers is None or unknown or now == told:
            return
        self._told[local.instance] = now
        if not (is_up and was_up):
            self.peers.report(local.instance, not is_up, time.monotonic(), local.detail or local.status)

    def gone(self, instance: str) -> None:
        """This host has an instance no longer: the others have it from Consul."""
        self._told.pop(instance, None)
        if self.peers:
            self.peers.withdraw(instance)

    def consul_says(self, critical: Iterable[CheckState]) -> None:
        """Consul's view changed: an instance that got well in it needs no more the news from before it fell ill."""
        if self.peers is None:
            return
        now, ids = time.monotonic(), {(check.node, check.service_id) for check in critical if check.service_id}
        for host, instance in self._critical.keys() - ids:
            self.peers.forget(host, instance, self._critical[host, instance])
        self._critical = {key: self._critical.get(key, now) for key in ids}
