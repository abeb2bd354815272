"""The hosts with what is on them: where one more instance may go. What runs is never moved to make room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping

from outrider.fleet.placement import choose, lacking
from outrider.fleet.rooms import Room, Want, wants_of
from outrider.fleet.spec import Fleet
from outrider.registry.layout import AgentDoc, HostDoc, PlacementDoc


class Floor:
    """`wants`: the placed agents in the order of placing. `closed`: host to why nothing new may be put there.

    lost: hosts on which nothing runs any more
    """

    def __init__(
        self,
        agents: Mapping[str, AgentDoc],
        placements: Mapping[str, PlacementDoc],
        hosts: Mapping[str, HostDoc],
        closed: Mapping[str, str],
        lost: Container[str] = (),
    ) -> None:
        fleet = Fleet("", {name: agents[name].agent for name in sorted(agents.keys() & placements.keys())})
        rooms = [Room.of(hosts[name].host, closed.get(name, "")) for name in sorted(hosts)]
        self.rooms = {room.host.name: room for room in rooms}
        self.wants = wants_of(fleet, rooms)
        self._used: dict[str, Counter[str]] = {want.name: Counter() for want in self.wants}
        for want in self.wants:
            for placed in placements[want.name].instances:
                room = self.rooms.get(placed.host)
                if room and placed.host not in lost:
                    self._take(want, placed.entry, room, placed.instance)

    def put(self, want: Want, instance: str) -> tuple[str, str] | None:
        """Put one more instance where it fits best. Returns its entry and host, or None."""
        found = choose(want, self._used[want.name])
        if found is None:
            return None
        entry, room = found
        self._take(want, entry, room, instance)
        return entry, room.host.name

    def put_on(self, want: Want, instance: str, host: str) -> str | None:
        """Put one more instance on `host`. Returns its entry, or None if it does not fit."""
        for entry, rooms in want.rooms.items():
            for room in rooms:
                if room.host.name == host and not room.refuses(want, entry):
                    self._take(want, entry, room, instance)
                    return entry
        return None

    def refusal(self, want: Want, host: str) -> str:
        """Why an instance cannot leave `host`."""
        others = {room.host.name for rooms in want.rooms.values() for room in rooms} - {host}
        return f"no other host may run it: {lacking(want)}" if others else f"it may run on {host} alone"

    def _take(self, want: Want, entry: str, room: Room, instance: str) -> None:
        entry = entry if entry in want.ports else next(iter(want.ports))
        room.take(want, entry, instance)
        self._used[want.name][entry] += 1
