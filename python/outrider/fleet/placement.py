"""Which host runs which instance. Pure and repeatable: the same input gives the same placement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import count, islice

from msgspec import Struct

from outrider.errors import FleetError
from outrider.fleet.rooms import Room, Want, wants_of
from outrider.fleet.spec import Fleet, Host

CANNOT = "cannot be placed"
NOTHING: Mapping[str, str] = {}
REASONS = 6  # hosts that one refusal names; a hundred would hide what it says


class Slot(Struct, frozen=True):
    """One instance's place. `entry`: the key of the agent's `hosts` that it fills, empty if it has none."""

    instance: str
    host: str
    entry: str = ""


class Unplaced(Struct, frozen=True):
    """An instance that no host can take, and what each of them lacks."""

    agent: str
    instance: str
    reason: str


Current = Mapping[str, Sequence[Slot]]
Slots = dict[str, dict[int, Slot]]


def place(
    fleet: Fleet, hosts: Sequence[Host], current: Current, closed: Mapping[str, str] | None = None
) -> dict[str, tuple[Slot, ...]]:
    """Agent to its slots. An instance that may stay where `current` has it stays.

    `closed`: host to why nothing new may be put there. Higher priority is placed first; replicas spread over the
    entries of `hosts`, then over hosts. Raises FleetError naming every instance without a place and what hosts lack.
    """
    slots, unplaced = solve(fleet, hosts, current, closed or {})
    if unplaced:
        problems = [f"{item.instance} {CANNOT}: {item.reason}" for item in unplaced]
        raise FleetError(problems, hint="give the hosts more room, relax the constraints, or run fewer instances")
    return slots


def solve(
    fleet: Fleet, hosts: Sequence[Host], current: Current, closed: Mapping[str, str] = NOTHING
) -> tuple[dict[str, tuple[Slot, ...]], tuple[Unplaced, ...]]:
    """As `place`, but with what cannot be placed as a value.

    Whatever runs stays first. Only if something is then left without a place is everything placed by priority, and if
    that fails too, as if nothing ran: a fleet that fits is not refused for how it came to be.
    """
    slots: Slots = {}
    unplaced: list[Unplaced] = []
    for attempt in (_stay_first, _by_priority, _afresh):
        rooms = [Room.of(host, closed.get(host.name, "")) for host in sorted(hosts, key=lambda host: host.name)]
        slots, unplaced = attempt(wants_of(fleet, rooms), current)
        if not unplaced:
            break
    found = {name: slots.get(name, {}) for name in fleet.agents}
    return {name: tuple(them[number] for number in sorted(them)) for name, them in found.items()}, tuple(unplaced)


def _stay_first(wants: Sequence[Want], current: Current) -> tuple[Slots, list[Unplaced]]:
    slots = {want.name: dict(_stay(want, current)) for want in wants}
    return slots, [lacking for want in wants for lacking in _fill(want, slots[want.name])]


def _by_priority(wants: Sequence[Want], current: Current) -> tuple[Slots, list[Unplaced]]:
    slots: Slots = {}
    unplaced: list[Unplaced] = []
    for want in wants:
        slots[want.name] = _stay(want, current)
        unplaced += _fill(want, slots[want.name])
    return slots, unplaced


def _afresh(wants: Sequence[Want], current: Current) -> tuple[Slots, list[Unplaced]]:
    return _by_priority(wants, {})


def _stay(want: Want, current: Current) -> dict[int, Slot]:
    """Instances that keep their place; they are put into their rooms."""
    before = {number: slot for slot in current.get(want.name, ()) if (number := number_of(want.name, slot.instance))}
    found: dict[int, Slot] = {}
    for number, slot in sorted(before.items()):
        room = next((room for room in want.rooms.get(slot.entry, ()) if room.host.name == slot.host), None)
        if room and not room.lacks(want, slot.entry) and len(found) < want.count:
            room.take(want, slot.entry, slot.instance)
            found[number] = slot
    return found


def number_of(agent: str, instance: str) -> int:
    """The number of an instance, from 1; 0 for a name that is none of its agent's.

    Any may be in use: a migration gives what it starts the lowest number that is free, and that stays.
    """
    text = instance.removeprefix(f"{agent}-")
    return int(text) if text.isdecimal() and instance != text else 0


def _fill(want: Want, slots: dict[int, Slot]) -> list[Unplaced]:
    """Place what has no slot yet."""
    used = Counter(slot.entry for slot in slots.values())
    unplaced = []
    free = (number for number in count(1) if number not in slots)
    for number in islice(free, max(0, want.count - len(slots))):
        instance = f"{want.name}-{number}"
        if found := choose(want, used):
            entry, room = found
            room.take(want, entry, instance)
            slots[number] = Slot(instance, room.host.name, entry)
            used[entry] += 1
        else:
            unplaced.append(Unplaced(want.name, instance, lacking(want)))
    return unplaced


def choose(want: Want, used: Mapping[str, int]) -> tuple[str, Room] | None:
    """Where one more instance goes: the emptiest entry first, there the host with fewest of this agent, then of all.

    `used`: instances by entry. None if no host has room.
    """
    order = {entry: index for index, entry in enumerate(want.rooms)}
    for entry in sorted(want.rooms, key=lambda entry: (used.get(entry, 0), order[entry])):
        fits = [room for room in want.rooms[entry] if not room.refuses(want, entry)]
        if fits:
            return entry, min(fits, key=_spread(want.name))
    return None


def _spread(name: str) -> Callable[[Room], tuple[int, int, str]]:
    return lambda room: (room.agents[name], room.instances, room.host.name)


def lacking(want: Want) -> str:
    """What each host lacks for one more instance, in one line."""
    said = []
    for entry, rooms in want.rooms.items():
        said += [f"{room.host.name}: {room.refuses(want, entry)}" for room in rooms]
        if not rooms:
            said.append(f"{entry}: no such host or group" if entry else "there are no hosts")
    said = list(dict.fromkeys(said))
    return "; ".join(said[:REASONS]) + (f"; and {len(said) - REASONS} more" if len(said) > REASONS else "")
