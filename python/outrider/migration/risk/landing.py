"""Where a migration would go, and the room that is left there afterwards: the placer's own arithmetic. Pure."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from outrider.errors import OutriderError
from outrider.failover.floor import Floor
from outrider.fleet.rooms import Room, Want
from outrider.migration.risk.observed import Published
from outrider.migration.risk.score import Measure
from outrider.migration.staged.plan import strategy_of
from outrider.registry.layout import Placed

NEW = "the new instance"


class Landing(Struct, frozen=True):
    """`source`: where it is, empty if nowhere; `target`: where it goes, empty if it cannot; `refusal`: why it cannot.

    room: the least share that is left of what the target has; choice: why this target
    version: of the instance that leaves
    """

    source: str
    target: str
    room: Measure
    refusal: str = ""
    choice: str = ""
    version: str = ""


def landing(published: Published, name: str, target: str = "", instance: str = "") -> Landing:
    """Where an instance of `name` goes: to `target`, or where placement would put it, else it stays on its host.

    Without its name it is the first that is not on the target. Raises OutriderError if the fleet has no such host.
    """
    if target and target not in published.hosts:
        raise OutriderError(f"no host {target}", hint=f"the fleet has {', '.join(sorted(published.hosts))}")
    leaves = leaving(published, name, target, instance)
    if leaves and leaves.host == target and leaves.version != published.agents[name].version:
        found = _beside(published, name, leaves)
    else:
        found = _landing(published, name, target, leaves.host if leaves else "")
    return replace(found, version=leaves.version if leaves else "")


def leaving(published: Published, name: str, target: str = "", instance: str = "") -> Placed | None:
    """The instance that leaves."""
    placed = published.placements[name].instances if name in published.placements else ()
    named = (each for each in placed if (each.instance == instance if instance else each.host != target))
    return next(named, placed[0] if placed else None)


def _landing(published: Published, name: str, target: str, source: str) -> Landing:
    if not published.hosts or not source:
        why = "it is not placed" if published.hosts else "no hosts are known: name an inventory"
        return Landing(source, target, Measure(None, why))
    if target == source:
        return _stay(published, name, source, "it is asked to stay there")
    closed = {host: doc.closed for host, doc in published.hosts.items() if doc.closed}
    floor = Floor(published.agents, published.placements, published.hosts, closed | {source: "it leaves"})
    want = next(want for want in floor.wants if want.name == name)
    if target:
        entry = floor.put_on(want, NEW, target)
        if entry is None:
            refusal = _refusal(floor, want, target)
            return Landing(source, target, Measure(0.0, f"{target}: {refusal}", "none"), f"{target}: {refusal}")
        return Landing(source, target, _left(floor.rooms[target], want), choice="it was named")
    chosen = floor.put(want, NEW)
    if chosen is None:
        return _stay(published, name, source, floor.refusal(want, source))
    return Landing(source, chosen[1], _left(floor.rooms[chosen[1]], want), choice="placement would choose it")


def _beside(published: Published, name: str, leaves: Placed) -> Landing:
    """The new version starts on the same host, while the old one is there if it need not end first."""
    doc, host = published.placements[name], leaves.host
    if strategy_of(published.agents[name]) == "cold":
        doc = replace(doc, instances=tuple(placed for placed in doc.instances if placed != leaves))
    floor = Floor(published.agents, {**published.placements, name: doc}, published.hosts, {})
    want = next(want for want in floor.wants if want.name == name)
    if host not in floor.rooms:
        return Landing(host, host, Measure(None, f"{host} is not described"))
    if floor.put_on(want, NEW, host) is None:
        refusal = f"{host}: {_refusal(floor, want, host)}"
        return Landing(host, host, Measure(0.0, refusal, "none"), refusal)
    return Landing(host, host, _left(floor.rooms[host], want), choice="its version changes there")


def _stay(published: Published, name: str, host: str, why: str) -> Landing:
    floor = Floor(published.agents, published.placements, published.hosts, {})
    want = next(want for want in floor.wants if want.name == name)
    if host not in floor.rooms:
        return Landing(host, host, Measure(None, f"{host} is not described"), choice=why)
    return Landing(host, host, _left(floor.rooms[host], want), choice=why)


def _refusal(floor: Floor, want: Want, target: str) -> str:
    entries = [entry for entry, rooms in want.rooms.items() if any(room.host.name == target for room in rooms)]
    if not entries:
        return f"is not among the hosts of {want.name}"
    return floor.rooms[target].refuses(want, entries[0])


def _left(room: Room, want: Want) -> Measure:
    """The scarcest of cores, memory, and GPU memory where it wants some."""
    host, need = room.host, want.resources
    if need.cpu is None or need.memory_mib is None:
        return Measure(None, "the fleet file does not say how many cores and how much memory it takes")
    if host.cpu is None or host.memory_mib is None or (need.vram_mib and not host.gpus_mib):
        return Measure(None, f"the inventory does not say what {host.name} has (outrider_cpu, _memory_mib, _gpus_mib)")
    shares = {"cores": _share(room.cpu, host.cpu), "memory": _share(room.memory_mib, host.memory_mib)}
    if need.vram_mib:
        shares["GPU memory"] = min(map(_share, room.gpus_mib, host.gpus_mib))
    told = ", ".join(f"{share:.0%} of its {what}" for what, share in shares.items())
    return Measure(min(shares.values()), f"{host.name} has {told} left, by what all declare")


def _share(left: float | None, whole: float) -> float:
    return max(left or 0.0, 0.0) / whole if whole else 0.0
