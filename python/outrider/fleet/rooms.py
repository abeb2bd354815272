"""What an agent wants of a host and what a host has left: the arithmetic under placement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct, field

from outrider.fleet.effective import agent_on
from outrider.fleet.spec import Agent, Fleet, Host, Resources


class Want(Struct):
    """What all instances of one agent want. `rooms` and `ports` go by entry of its `hosts`, `""` if it has none."""

    name: str
    count: int
    resources: Resources
    labels: dict[str, str]
    rooms: dict[str, tuple[Room, ...]]
    ports: dict[str, tuple[int, ...]]

    def order(self) -> tuple[float, ...]:
        """Higher priority first; then whoever has the fewest hosts to go to, then the largest."""
        want = self.resources
        hosts = len({room.host.name for rooms in self.rooms.values() for room in rooms})
        return (-want.priority, hosts, -(want.vram_mib or 0), -(want.memory_mib or 0), -(want.cpu or 0))


class Room(Struct):
    """What is left of a host while placing. None is without limit. `closed`: why nothing new may be put there."""

    host: Host
    cpu: float | None
    memory_mib: int | None
    gpus_mib: list[int]
    agents: Counter[str] = field(default_factory=Counter)
    ports: dict[int, str] = field(default_factory=dict)
    instances: int = 0
    closed: str = ""

    @classmethod
    def of(cls, host: Host, closed: str = "") -> Room:
        """The whole host, empty."""
        return cls(host, host.cpu, host.memory_mib, list(host.gpus_mib), closed=closed)

    def refuses(self, want: Want, entry: str) -> str:
        """Why one more instance may not be put here; empty if it may."""
        return self.closed or self.lacks(want, entry)

    def lacks(self, want: Want, entry: str) -> str:
        """What the host lacks for one more instance; empty if it fits."""
        for label, value in want.labels.items():
            if self.host.labels.get(label) != value:
                return f"label {label} is {self.host.labels.get(label, 'missing')}, wanted {value}"
        need = want.resources
        if need.cpu and self.cpu is not None and need.cpu > self.cpu + 1e-9:
            return f"{max(self.cpu, 0):.4g} cores left, wanted {need.cpu:g}"
        if need.memory_mib and self.memory_mib is not None and need.memory_mib > self.memory_mib:
            return f"{self.memory_mib} MiB of memory left, wanted {need.memory_mib}"
        if need.vram_mib and need.vram_mib > max(self.gpus_mib, default=0):
            return f"{max(self.gpus_mib, default=0)} MiB left on its emptiest GPU, wanted {need.vram_mib}"
        taken = next((port for port in want.ports[entry] if port in self.ports), None)
        return f"port {taken} is taken by {self.ports[taken]}" if taken is not None else ""

    def take(self, want: Want, entry: str, instance: str) -> None:
        """Put one instance here."""
        self.instances += 1
        self.agents[want.name] += 1
        if self.cpu is not None:
            self.cpu -= want.resources.cpu or 0
        if self.memory_mib is not None:
            self.memory_mib -= want.resources.memory_mib or 0
        vram_mib = want.resources.vram_mib or 0
        fitting = [(left, index) for index, left in enumerate(self.gpus_mib) if left >= vram_mib]
        if vram_mib and fitting:
            # The fullest GPU that still has room, so that a large model finds a whole one later.
            self.gpus_mib[min(fitting)[1]] -= vram_mib
        self.ports.update(dict.fromkeys(want.ports[entry], instance))


def wants_of(fleet: Fleet, rooms: Sequence[Room]) -> list[Want]:
    """What every agent wants, in the order of placing."""
    answering: dict[str, tuple[Room, ...]] = {"": tuple(rooms)}
    for agent in fleet.agents.values():
        for entry in agent.on_host():
            if entry not in answering:
                answering[entry] = tuple(room for room in rooms if room.host.answers_to(entry))
    wants = [_want(name, agent, answering) for name, agent in fleet.agents.items()]
    return sorted(wants, key=lambda want: (*want.order(), want.name))


def _want(name: str, agent: Agent, answering: dict[str, tuple[Room, ...]]) -> Want:
    entries = tuple(agent.on_host()) or ("",)
    ports = {entry: fixed_ports(agent_on(agent, entry)) for entry in entries}
    mine = {entry: answering[entry] for entry in entries}
    return Want(name, agent.instance_count(), agent.resources, agent.labels, mine, ports)


def fixed_ports(agent: Agent) -> tuple[int, ...]:
    """Ports that an instance takes on its host, whatever else runs there."""
    return tuple(port for port in agent.ports.values() if isinstance(port, int))
