"""In which order agents change. Pure.

What is new comes first, then what changes, needs before what needs them, and what goes last: so a caller that is
moved from an old agent to a new one always finds one of the two. Only an old agent that sits on a port that another one
wants goes before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from outrider.fleet.effective import agent_on
from outrider.fleet.graph import waves
from outrider.fleet.spec import Agent, Fleet
from outrider.migration.changes import AgentChange, Documents


class Stage(Struct, frozen=True):
    """Agents that may change at the same time, `width` of them at once.

    together: they share the hosts' start slots, so that the wait of each begins anew when another one is well
    """

    agents: tuple[str, ...]
    width: int
    together: bool = False


def stages(found: Sequence[AgentChange], parallel: int) -> list[Stage]:
    """The stages of a rollout. Agents that do not change are in none."""
    by_kind: dict[str, dict[str, AgentChange]] = {"added": {}, "changed": {}, "removed": {}, "unchanged": {}}
    for change in found:
        by_kind[change.kind][change.name] = change
    wanted = _ports(change.after for change in found if change.kind != "removed")
    first = {name for name, change in by_kind["removed"].items() if _ports([change.before]) & wanted}
    going = _waves(by_kind["removed"], after=False)[::-1]
    added = tuple(sorted(by_kind["added"]))
    return [
        *(Stage(wave, parallel) for wave in _only(going, first)),
        # All at once: the shims themselves start them in the order of their needs.
        *([Stage(added, len(added), together=True)] if added else []),
        *(Stage(wave, parallel) for wave in _only(_waves(_all_after(found), after=True), set(by_kind["changed"]))),
        *(Stage(wave, parallel) for wave in _only(going, set(by_kind["removed"]) - first)),
    ]


def _all_after(found: Iterable[AgentChange]) -> dict[str, AgentChange]:
    return {change.name: change for change in found if change.kind != "removed"}


def _waves(found: Mapping[str, AgentChange], *, after: bool) -> list[tuple[str, ...]]:
    """Waves over the needs among `found`; an agent whose document is missing needs nothing."""
    docs = {name: (change.after if after else change.before).agent for name, change in found.items()}
    return waves(Fleet("", {name: doc.agent if doc else Agent() for name, doc in docs.items()}))


def _only(order: Iterable[tuple[str, ...]], names: set[str]) -> Iterator[tuple[str, ...]]:
    for wave in order:
        if kept := tuple(name for name in wave if name in names):
            yield kept


def _ports(documents: Iterable[Documents]) -> set[tuple[str, int]]:
    """Fixed ports per host that the instances of these documents listen on."""
    return {
        (placed.host, port)
        for docs in documents
        if docs.agent
        for placed in docs.instances
        for port in agent_on(docs.agent.agent, placed.entry).ports.values()
        if isinstance(port, int)
    }
