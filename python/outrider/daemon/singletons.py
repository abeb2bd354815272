"""Tells the leases what becomes of this host's singletons, and those what becomes of their leases."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from outrider.daemon.handover import Handovers
from outrider.discovery.feed import View
from outrider.discovery.records import Entry, Instance, Role
from outrider.failover.confirm import Confirming
from outrider.failover.failsafe import Failsafe
from outrider.failover.keeper import LeaseKeeper
from outrider.failover.rules import release_after_s
from outrider.fleet.effective import is_fenced, may_run_on
from outrider.fleet.spec import Agent, Host
from outrider.host.config import Config
from outrider.host.peers import Peers
from outrider.host.publisher import SUSPICION, instance_of_service
from outrider.host.state import Local
from outrider.registry.address import Address
from outrider.registry.client import connect
from outrider.registry.layout import MoveDoc, Placed, PlacementDoc
from outrider.registry.leases import Lease, Member

# For so long callers wait for the next holder of a singleton, within their deadlines, instead of being refused.
VACANT_S = 8.0
# With the documents read for so many seconds, what is not here was not placed here.
SETTLED_TICKS = 10


class Singletons:
    """Of one host. `changed` is called with a Local whose role or epoch is another; None when leases elsewhere are.

    addresses: of Consul's agents, that of this host first
    lost: addresses of hosts that are lost now
    key_of: as MoveKeys says it
    """

    def __init__(
        self,
        config: Config,
        addresses: Sequence[Address],
        peers: Peers | None,
        view: Callable[[], View],
        locals_: Mapping[str, Local],
        changed: Callable[[Local | None], None],
        lost: Callable[[], Container[str]],
        key_of: Callable[[PlacementDoc], MoveDoc | None],
    ) -> None:
        self._config = config
        self._view = view
        self._locals = locals_
        self._changed = changed
        self._ticks = 0
        self._served: set[str] = set()
        self._closed: set[str] = set()  # because their agents are held
        self._vacant_since: dict[str, float] = {}
        self.keeper = LeaseKeeper(
            connect(*addresses, avoid=lost),
            host=config.host,
            runtime_dir=config.runtime_dir,
            state_dir=config.state_dir,
            changed=self._lease_changed,
        )
        self.handovers = Handovers(self.keeper, config, self._well_instance, key_of)
        ask = Failsafe(peers, self.keeper.promise).ask_members if peers else None
        home, *others = addresses
        servers = connect(*others, avoid=lost) if others else None
        self.confirming = Confirming(self.keeper, connect(home), servers, config.host, ask)

    @property
    def leases(self) -> Mapping[str, Lease]:
        """Every lease of the fleet."""
        return self.keeper.leases

    def start(self) -> None:
        """Follow the leases, and confirm those that are held."""
        self.keeper.start()
        self.confirming.start()

    async def stop(self) -> None:
        """Leave every lease as it is."""
        self.handovers.stop()
        await self.confirming.stop()
        await self.keeper.stop()

    def follow(self, local: Local) -> None:
        """Something about an instance changed."""
        if local.doc.agent.mode != "singleton":
            return
        if not self._view().documents_read:
            self._as_left(local)
            return
        placement = self._view().placements.get(local.doc.name)
        if placement is None:
            return
        agent, instance, keeper = local.doc.name, local.instance, self.keeper
        members = tuple(Member(placed.instance, placed.host) for placed in placement.instances if placed.state == "run")
        cold = local.doc.agent.fence is not None  # then it holds the lease first, and its process starts after
        well = local.status in ("passing", "warning")
        alive = local.pid is not None or (cold and (well or local.status == "starting"))
        ready = alive and well
        view = self._view()
        hosts = view.hosts
        inventory = [doc.host for doc in hosts.values()] or [Host(name) for name in placed_hosts(view)]
        sole = is_sole(local.doc.agent, local.placed, inventory)
        keeper.want(
            agent, instance, members, frozenset(hosts),
            sole=sole, ready=ready, handover=placement.handover, reserve=self._is_reserve(placement, instance),
            moving=bool(placement.migration and placement.state_key_hash),
        )  # fmt: skip
        self._obey_hold(agent, instance, placement.held)
        if ready:
            self.handovers.follow(local, placement)
            return
        if not alive:
            # What it left behind knows of no lease, and is being ended.
            keeper.give_up(agent, instance, local.detail, after_s=release_after_s(ended=not cold))
        elif local.status == "stopped":
            keeper.close(agent, instance)
        elif local.detail.startswith(SUSPICION) and not cold and self._stood_by(agent, instance):
            # It lives, and may be at work: the next one waits until it has stopped.
            keeper.give_up(agent, instance, local.detail, after_s=release_after_s(ended=False))

    def _is_reserve(self, placement: PlacementDoc, instance: str) -> bool:
        """As the placement says now: a runner may know an earlier one for a while."""
        own = (instance, self._config.host)
        return any(placed.reserve for placed in placement.instances if (placed.instance, placed.host) == own)

    def _obey_hold(self, agent: str, instance: str, held: str) -> None:
        """What is held takes no work, whoever still knows its address."""
        if held:
            self._closed.add(instance)
            self.keeper.close(agent, instance)
        elif instance in self._closed:
            self._closed.discard(instance)
            self.keeper.reopen(agent, instance)

    def follow_all(self) -> None:
        """The documents changed."""
        for local in list(self._locals.values()):
            self.follow(local)

    def members_changed(self) -> None:
        """Whom a holder here is to pass its lease to may have become well, or a member."""
        for local in self._locals.values():
            self._follow_handover(local)

    def holds_lease(self, instance: str) -> bool:
        """Whether an instance here holds the lease at this moment: what its process or its dead-man reads."""
        return self.keeper.file(instance).is_granted

    def forget(self, instance: str) -> None:
        """It is no longer placed here."""
        self.keeper.forget(instance)

    def tick(self) -> bool:
        """Once a second. True while callers wait for a holder: how long they do depends on the time."""
        self.keeper.tick()
        self._ticks += self._view().documents_read
        if self._ticks > SETTLED_TICKS:
            self.keeper.release_orphans(self._locals)
        for local in self._locals.values():
            if local.role == "holder" and not self.keeper.file(local.instance).is_granted:
                self._lease_changed(local.instance)
        self.members_changed()
        return bool(self._vacant_since)

    def waited_for(self, entries: dict[str, Entry], now: float) -> dict[str, Entry]:
        """With `held` set for each singleton that has lost its holder a moment ago."""
        agents = self._view().agents
        waited = dict(entries)
        for name, entry in entries.items():
            doc = agents.get(name)
            if entry.instances:
                self._served.add(name)
                self._vacant_since.pop(name, None)
            elif doc is None or doc.agent.mode != "singleton" or name not in self._served:
                self._vacant_since.pop(name, None)
            elif now - self._vacant_since.setdefault(name, now) < VACANT_S:
                waited[name] = replace(entry, held=True)
        return waited

    def _as_left(self, local: Local) -> None:
        """What an earlier shim granted holds until its end, whether or not Consul can be asked by then."""
        file = self.keeper.file(local.instance)
        if local.role == "standby" and file.is_granted and local.pid is not None:
            local.role, local.epoch = "holder", file.epoch

    def _lease_changed(self, instance: str) -> None:
        local = self._locals.get(instance)
        if local is None:
            self._changed(None)
            return
        epoch = self.keeper.epoch(instance)
        role: Role = "holder" if epoch else "standby"
        if (local.role, local.epoch) != (role, epoch):
            local.role, local.epoch = role, epoch
            self._changed(local)
        if (placement := self._view().placements.get(local.doc.name)) and placement.held:
            self._obey_hold(local.doc.name, instance, placement.held)
        self._follow_handover(local)

    def _follow_handover(self, local: Local) -> None:
        placement = self._view().placements.get(local.doc.name)
        if placement and local.role == "holder" and local.status in ("passing", "warning"):
            self.handovers.follow(local, placement)

    def _stood_by(self, agent: str, instance: str) -> bool:
        """Whether another instance could hold the lease: an ill holder is better than none."""
        own = Member(instance, self._config.host)
        return any(Member(other.instance, other.host) != own for other in self._well(agent))

    def _well_instance(self, agent: str, member: Member) -> Instance | None:
        return next((found for found in self._well(agent) if Member(found.instance, found.host) == member), None)

    def _well(self, agent: str) -> Iterator[Instance]:
        """Its instances that Consul knows and finds no fault with."""
        view = self._view()
        ill = {(check.service_id, check.node) for check in view.critical if check.service_id}
        ill_nodes = {check.node for check in view.critical if not check.service_id}
        for node, services in view.members.items():
            for service in services:
                ours = service.meta.get("agent") == agent and node not in ill_nodes
                if ours and (service.id, node) not in ill:
                    yield instance_of_service(service, node)


def placed_hosts(view: View) -> frozenset[str]:
    """Every host that something is placed on: what is known of the inventory before that is published."""
    return frozenset(placed.host for doc in view.placements.values() for placed in doc.instances)


def is_sole(agent: Agent, placed: Placed, hosts: Iterable[Host]) -> bool:
    """Whether no other host takes it over by itself, so that its holder need not fear another.

    Nobody takes over an agent either that does not stop when it loses its lease.
    """
    if agent.standbys:
        return False
    if not is_fenced(agent):
        return True
    return [host.name for host in hosts if may_run_on(agent, host)] == [placed.host]
