"""What an instance says of itself while a required need of its agent is not served: `warning`, never `critical`.

Direct needs only: an instance in `warning` serves, so one dead agent paints those that call it, and nobody further.
Each host finds this out for all instances, from the documents and the catalogue that it has anyway. So all hosts order
them alike: if only a host's own were in `warning` there, each host would send its callers to the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from outrider.fleet.effective import agent_on
from outrider.fleet.spec import Agent, Need
from outrider.registry.layout import AgentDoc, Placed, PlacementDoc

SETTLE_S = 1.0  # a need that is away, or back, for less than this changes nothing

Places = Iterable[tuple[Agent, Placed]]
Needs = Mapping[str, tuple[Need, ...]]


def places(agents: Mapping[str, AgentDoc], placements: Mapping[str, PlacementDoc]) -> list[tuple[Agent, Placed]]:
    """Every instance of the fleet, with its agent."""
    known = ((agents[name].agent, doc) for name, doc in placements.items() if name in agents)
    return [(agent, placed) for agent, doc in known for placed in doc.instances]


def required_needs(where: Places) -> dict[str, tuple[Need, ...]]:
    """Instance to what it cannot work without, by agent; only those that need something."""
    needs = {placed.instance: agent_on(agent, placed.entry).need_list() for agent, placed in where if may_need(agent)}
    required = {name: tuple(sorted((n for n in all_ if n.required), key=_by_agent)) for name, all_ in needs.items()}
    return {name: found for name, found in required.items() if found}


def may_need(agent: Agent) -> bool:
    """False, quickly, for an agent that needs nothing anywhere."""
    return bool(agent.needs) or isinstance(agent.hosts, dict)


def reasons(needs: Needs, down: frozenset[str]) -> dict[str, str]:
    """Instance to what it lacks, for those that lack a need of `down`. The text has no figure: Consul stores it."""
    lacking = (
        {name: [need for need in required if need.agent in down] for name, required in needs.items()} if down else {}
    )
    return {name: "; ".join(map(_sentence, found)) for name, found in lacking.items() if found}


def _by_agent(need: Need) -> str:
    return need.agent


def _sentence(need: Need) -> str:
    fallback = f" (fallback: {need.fallback})" if need.fallback else ""
    return f"needs {need.agent}: nobody serves it{fallback}"


class Settled:
    """A set that others change at any time, as it is once a change has lasted. Pure: `update` is told the time."""

    def __init__(self, settle_s: float = SETTLE_S) -> None:
        self._settle_s = settle_s
        self._changing: dict[str, float] = {}
        self.members: frozenset[str] = frozenset()

    def update(self, now_members: Iterable[str], now: float) -> float | None:
        """Take a change that has lasted; returns the monotonic time at which the next one will have, if any."""
        changing = self.members ^ frozenset(now_members)
        self._changing = {name: self._changing.get(name, now) for name in changing}
        lasting = frozenset(name for name, since in self._changing.items() if now - since >= self._settle_s)
        self.members ^= lasting
        for name in lasting:
            del self._changing[name]
        return min(self._changing.values()) + self._settle_s if self._changing else None


class Degradation:
    """Looks whenever the catalogue was published, and tells `changed` once what instances lack is different."""

    def __init__(
        self,
        where: Callable[[], Places],
        serves: Callable[[str], bool],
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._where = where
        self._serves = serves
        self._changed = changed
        self._clock = clock
        self._needs: Needs | None = None
        self._down = Settled()
        self._timer: asyncio.TimerHandle | None = None
        self.reasons: dict[str, str] = {}

    def documents_changed(self) -> None:
        """Agents, needs or places are others than before; the next look takes them."""
        self._needs = None

    def look(self) -> None:
        """Something may have changed."""
        self.stop()
        if self._needs is None:
            self._needs = required_needs(self._where())
        needed = {need.agent for required in self._needs.values() for need in required}
        now = self._clock()
        due = self._down.update((name for name in needed if not self._serves(name)), now)
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(due - now + 0.001, self.look)
        found = reasons(self._needs, self._down.members)
        if found != self.reasons:
            self.reasons = found
            self._changed()

    def stop(self) -> None:
        """Look no more by itself."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
