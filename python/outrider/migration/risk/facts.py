"""Facts that the fleet file and the agent's source give, as measures for the score."""

from __future__ import annotations

import re

from outrider.fleet.graph import edges
from outrider.fleet.spec import Agent, Fleet
from outrider.migration.risk.factors import STATES, counted
from outrider.migration.risk.score import Measure
from outrider.migration.risk.source import SourceFacts

# What an agent does by itself (sockets, threads, health, configuration) is what a move breaks: each weighs as this much
# code.
PLUMBING_KB = 50
_NUMBER = re.compile(r"(?:t|tier)?[-_ ]?([0-9]{1,3})")


def declared(fleet: Fleet, name: str, was: Agent | None = None) -> dict[str, Measure]:
    """I1 to I3: what the fleet file says of this agent. `was`: at the version whose files are there already."""
    agent = fleet.agents[name]
    states = [_declared_state(each) for each in (agent, was) if each]
    reached = dependants(fleet, name)
    some = ", ".join(reached[:5]) + (f" and {len(reached) - 5} more" if len(reached) > 5 else "")
    return {
        "I1": max(states, key=lambda state: state.value or 0),
        "I2": Measure(len(reached), f"needed, directly or not, by {some or 'nobody'}"),
        "I3": _tier(agent),
    }


def from_source(facts: SourceFacts, state: Measure) -> dict[str, Measure]:
    """L5, and I1 anew: an agent that opens a database keeps state, whatever the fleet file says."""
    own = [kind for kind in ("sockets", "threads", "health", "config") if getattr(facts, kind)]
    kilobytes = facts.size / 1000
    evidence = f"{counted(facts.files, 'file')}, {counted(facts.lines, 'line')}, {kilobytes:,.0f} KB"
    if own:
        evidence += f"; by itself: {', '.join(f'{kind} {getattr(facts, kind)[0]}' for kind in own)}"
    size = Measure(kilobytes + PLUMBING_KB * len(own), evidence)
    if facts.unread:
        size = Measure(None, f"cannot be read: {'; '.join(facts.unread[:3])}")
    writer = STATES.index("single writer")
    if facts.databases and state.value is not None and state.value < writer:
        state = Measure(writer, f"it uses {', '.join(facts.databases[:3])}, though {state.evidence}")
    return {"L5": size, "I1": state}


def dependants(fleet: Fleet, name: str) -> tuple[str, ...]:
    """Agents that cannot do without `name`, directly or through others, nearest first; cycles are no trouble."""
    needed_by: dict[str, list[str]] = {}
    for agent, needs in edges(fleet).items():
        for need in needs:
            needed_by.setdefault(need, []).append(agent)
    found = [name]
    for each in found:  # grows meanwhile
        found += [agent for agent in sorted(needed_by.get(each, ())) if agent not in found]
    return tuple(found[1:])


def _declared_state(agent: Agent) -> Measure:
    if not agent.state:
        return Measure(STATES.index("none"), "the fleet file says that it keeps no state")
    if agent.mode == "singleton" or agent.instance_count() == 1:
        return Measure(
            STATES.index("single writer"), "the fleet file says that it keeps state, and one instance writes it"
        )
    return Measure(
        STATES.index("replicated"), f"the fleet file says that {agent.instance_count()} instances keep state"
    )


def _tier(agent: Agent) -> Measure:
    """The number that names its tier, alone or after the word; a core tier is 0. That of a host in it means nothing."""
    if not agent.tier:
        return Measure(None, "the fleet file names no tier")
    if "core" in agent.tier.lower():
        return Measure(0, f"tier {agent.tier}")
    if number := _NUMBER.fullmatch(agent.tier.lower()):
        return Measure(int(number[1]), f"tier {agent.tier}")
    return Measure(None, f"tier {agent.tier} has no number")
