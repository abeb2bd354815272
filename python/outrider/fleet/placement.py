"""Which host runs which instance. Pure and repeatable: the same input gives the same placement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from outrider.errors import FleetError
from outrider.fleet.effective import agent_on
from outrider.fleet.spec import Agent, Fleet, Host

Current = Mapping[str, Sequence["Slot"]]


class Slot(Struct, frozen=True):
    """One instance's place. `entry`: the key of the agent's `hosts` that it fills, empty if it has none."""

    instance: str
    host: str
    entry: str = ""


class _Room(Struct):
    """What is left of a host while placing. None is without limit."""

    host: Host
    cpu: float | None
    memory_mib: int | None
    gpus_mib: list[int]
    agents: dict[str, int]
    ports: dict[int, str]
    instances: int = 0


def place(fleet: Fleet, hosts: Sequence[Host], current: Current) -> dict[str, tuple[Slot, ...]]:
    """Agent to its slots. An instance that may stay where `current` has it stays.

    Higher priority is placed first. Replicas spread over the entries of `hosts`, then over hosts. Raises FleetError
    naming every instance without a place and what each host lacks.
    """
    rooms = {host.name: _Room(host, host.cpu, host.memory_mib, list(host.gpus_mib), {}, {}) for host in hosts}
    slots: dict[str, dict[int, Slot]] = {name: {} for name in fleet.agents}
    problems: list[str] = []
    order = sorted(fleet.agents, key=lambda name: -fleet.agents[name].resources.priority)
    # What may stay is put first, so that nothing new takes its room.
    for name in order:
        before = {slot.instance: slot for slot in current.get(name, ())}
        for number in range(1, fleet.agents[name].instance_count() + 1):
            slot = before.get(f"{name}-{number}")
            if slot and _may_stay(fleet.agents[name], slot, rooms):
                slots[name][number] = slot
                _occupy(rooms[slot.host], fleet.agents[name], slot)
    for name in order:
        for number in range(1, fleet.agents[name].instance_count() + 1):
            if number not in slots[name]:
                found = _find(fleet.agents[name], name, number, list(slots[name].values()), rooms)
                if isinstance(found, str):
                    problems.append(found)
                    continue
                slots[name][number] = found
                _occupy(rooms[found.host], fleet.agents[name], found)
    if problems:
        raise FleetError(problems, hint="give the hosts more room, relax the constraints, or run fewer instances")
    return {name: tuple(found[number] for number in sorted(found)) for name, found in slots.items()}


def _may_stay(agent: Agent, slot: Slot, rooms: Mapping[str, _Room]) -> bool:
    room = rooms.get(slot.host)
    entries = agent.on_host()
    if room is None or (entries and (slot.entry not in entries or not room.host.answers_to(slot.entry))):
        return False
    return not _lacks(room, agent, slot.entry)


def _find(agent: Agent, name: str, number: int, taken: Sequence[Slot], rooms: Mapping[str, _Room]) -> Slot | str:
    """A slot for instance `number`, or why there is none."""
    entries = list(agent.on_host()) or [""]
    used = [slot.entry for slot in taken]
    refused: list[str] = []
    for entry in sorted(entries, key=lambda entry: (used.count(entry), entries.index(entry))):
        candidates = [room for room in rooms.values() if not entry or room.host.answers_to(entry)]
        if not candidates:
            refused.append(f"{entry}: no such host or group")
        for room in sorted(candidates, key=lambda room: (room.agents.get(name, 0), room.instances, room.host.name)):
            lack = _lacks(room, agent, entry)
            if not lack:
                return Slot(f"{name}-{number}", room.host.name, entry)
            refused.append(f"{room.host.name}: {lack}")
    return f"{name}-{number} cannot be placed: " + "; ".join(refused or ["there are no hosts"])


def _lacks(room: _Room, agent: Agent, entry: str) -> str:
    """What the host lacks for the agent; empty if it fits."""
    want = agent.resources
    for label, value in agent.labels.items():
        if room.host.labels.get(label) != value:
            return f"label {label} is {room.host.labels.get(label, 'missing')}, wanted {value}"
    if want.cpu and room.cpu is not None and want.cpu > room.cpu + 1e-9:
        return f"{max(room.cpu, 0):g} cores left, wanted {want.cpu:g}"
    if want.memory_mib and room.memory_mib is not None and want.memory_mib > room.memory_mib:
        return f"{room.memory_mib} MiB of memory left, wanted {want.memory_mib}"
    if want.vram_mib and want.vram_mib > max(room.gpus_mib, default=0):
        return f"{max(room.gpus_mib, default=0)} MiB left on its emptiest GPU, wanted {want.vram_mib}"
    for port in agent_on(agent, entry).ports.values():
        if isinstance(port, int) and port in room.ports:
            return f"port {port} is taken by {room.ports[port]}"
    return ""


def _occupy(room: _Room, agent: Agent, slot: Slot) -> None:
    name = slot.instance.rpartition("-")[0]
    room.instances += 1
    room.agents[name] = room.agents.get(name, 0) + 1
    if room.cpu is not None:
        room.cpu -= agent.resources.cpu or 0
    if room.memory_mib is not None:
        room.memory_mib -= agent.resources.memory_mib or 0
    if agent.resources.vram_mib and room.gpus_mib:
        emptiest = room.gpus_mib.index(max(room.gpus_mib))
        room.gpus_mib[emptiest] -= agent.resources.vram_mib
    for port in agent_on(agent, slot.entry).ports.values():
        if isinstance(port, int):
            room.ports[port] = slot.instance
