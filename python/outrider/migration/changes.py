"""What a publication would change: pure comparison of what Consul holds with what the fleet file wants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from outrider.errors import FleetError
from outrider.fleet.effective import version_of
from outrider.fleet.placement import Slot, place
from outrider.fleet.spec import Host
from outrider.migration.compile import Definition, agent_docs
from outrider.registry.layout import AgentDoc, Placed, PlacementDoc

Kind = Literal["added", "changed", "removed", "unchanged"]
What = Literal["release", "configuration", "placement", "description", "unfinished"]
PLACED_BY = "fleet file"


class Documents(Struct, frozen=True):
    """Both documents of one agent, as Consul holds them or should."""

    agent: AgentDoc | None = None
    placement: PlacementDoc | None = None

    @property
    def instances(self) -> tuple[Placed, ...]:
        """The placed instances, none without a placement."""
        return self.placement.instances if self.placement else ()

    def placed(self, instances: Iterable[Placed]) -> Documents:
        """These documents with other instances."""
        name = self.agent.name if self.agent else self.placement.agent if self.placement else ""
        return Documents(self.agent, PlacementDoc(name, tuple(instances), PLACED_BY))


class Goal(Struct, frozen=True):
    """Where one agent shall arrive. `agent` None: it shall be gone."""

    agent: AgentDoc | None = None
    slots: tuple[Slot, ...] = ()


class AgentChange(Struct, frozen=True):
    """The difference for one agent. `restarts`: the running instances that will be started anew."""

    name: str
    kind: Kind
    what: tuple[What, ...]
    before: Documents
    after: Documents
    restarts: tuple[str, ...] = ()


def goals(
    definition: Definition,
    releases: Mapping[str, str],
    current: Mapping[str, Documents],
    hosts: Sequence[Host],
    *,
    prune: bool,
    closed: Mapping[str, str] | None = None,
) -> dict[str, Goal]:
    """Where every agent shall arrive: placed as now where that is still allowed, else anew. `prune`: others shall go.

    `closed`: host to why nothing new may be put there. Raises FleetError if an agent has no place or another fleet's
    agents would go, ReleaseError.
    """
    docs = {name: _as_known(doc, current.get(name)) for name, doc in agent_docs(definition, releases).items()}
    now = {name: [Slot(p.instance, p.host, p.entry) for p in found.instances] for name, found in current.items()}
    slots = place(definition.fleet, hosts, now, closed)
    wanted = {name: Goal(docs[name], slots[name]) for name in definition.agents}
    gone = [name for name in current if name not in wanted] if prune else []
    _refuse_other_fleet(definition.name, {name: current[name] for name in gone})
    return wanted | dict.fromkeys(gone, Goal())


def _as_known(doc: AgentDoc, current: Documents | None) -> AgentDoc:
    """With the version before, while it is the same: that a migration left it there is no change."""
    known = current.agent if current else None
    return known if known and replace(known, previous=None) == doc else doc


def _refuse_other_fleet(fleet: str, gone: Mapping[str, Documents]) -> None:
    """The wrong Consul address must not drain somebody else's fleet."""
    others = [name for name, docs in gone.items() if docs.agent and docs.agent.fleet != fleet]
    if others:
        owner = next(docs.agent.fleet for name in others if (docs := gone[name]).agent)
        held = (
            f"this Consul holds {len(others)} agents of the fleet {owner}, which {fleet} would remove: {_few(others)}"
        )
        hint = f"is the Consul address right? To replace it, remove {owner} first with `state: absent`"
        raise FleetError([held], hint=hint)


def _few(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")


def arrived(goal: Goal, docs: Documents) -> Documents:
    """The documents at the goal. What operators asked of an instance (stopped, restarts) stays with it."""
    if goal.agent is None:
        return Documents()
    now = {placed.instance: placed for placed in docs.instances}
    instances = tuple(wanted_of(slot, goal.agent.version, now.get(slot.instance)) for slot in goal.slots)
    if docs.placement is not None and docs.instances == instances:
        return Documents(goal.agent, docs.placement)
    return Documents(goal.agent, PlacementDoc(goal.agent.name, instances, PLACED_BY))


def wanted_of(slot: Slot, version: str, now: Placed | None) -> Placed:
    """The placement of one instance at the goal."""
    if now is None:
        return Placed(slot.instance, slot.host, version, slot.entry)
    home = now.home if now.host == slot.host else ""
    return Placed(slot.instance, slot.host, version, slot.entry, now.state, now.generation, home)


def changes(current: Mapping[str, Documents], wanted: Mapping[str, Goal]) -> list[AgentChange]:
    """The difference for every agent of `wanted`, by name."""
    return [_change(name, current.get(name, Documents()), wanted[name]) for name in sorted(wanted)]


def _change(name: str, before: Documents, goal: Goal) -> AgentChange:
    after = arrived(goal, before)
    if goal.agent is None:
        return AgentChange(name, "removed" if before != after else "unchanged", (), before, after)
    if before.agent is None:
        return AgentChange(name, "added", (), before, after)
    what = tuple(_what(before, before.agent, after, goal.agent))
    kind: Kind = "changed" if before != after else "unchanged"
    return AgentChange(name, kind, what, before, after, _restarts(before, after))


def _what(before: Documents, old: AgentDoc, after: Documents, new: AgentDoc) -> Iterable[What]:
    if old.release != new.release:
        yield "release"
    if version_of(old.agent, old.release) != version_of(new.agent, old.release):
        yield "configuration"
    if _where(before) != _where(after):
        yield "placement"
    if old != new and old.version == new.version:
        yield "description"
    if old.version == new.version and any(placed.version != new.version for placed in before.instances):
        yield "unfinished"


def _where(docs: Documents) -> list[tuple[str, str, str]]:
    return sorted((placed.instance, placed.host, placed.entry) for placed in docs.instances)


def _restarts(before: Documents, after: Documents) -> tuple[str, ...]:
    now = {placed.instance: placed for placed in before.instances}
    return tuple(
        placed.instance
        for placed in after.instances
        if placed.state == "run" and (old := now.get(placed.instance)) and _process(old) != _process(placed)
    )


def _process(placed: Placed) -> tuple[str, str]:
    return placed.version, placed.host
