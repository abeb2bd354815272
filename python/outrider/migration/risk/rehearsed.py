"""Whether the very plan that is asked about was rehearsed a short while ago. Pure."""

from __future__ import annotations

from msgspec import Struct

from outrider.migration.risk.factors import REHEARSED_S
from outrider.migration.risk.landing import Landing
from outrider.migration.risk.observed import Observations
from outrider.migration.staged.plan import NOTHING_RUNS, strategy_of
from outrider.migration.staged.records import plan_digest
from outrider.registry.layout import AgentDoc


class Rehearsed(Struct, frozen=True):
    """`met`: whether it was; `evidence`: by which migration and when, or how to do it."""

    met: bool
    evidence: str


def rehearsed(observed: Observations, agent: AgentDoc, goes: Landing) -> Rehearsed:
    """`agent`: as it will be."""
    strategy = strategy_of(agent)
    if strategy == "cold":
        return Rehearsed(False, f"it cannot be: {NOTHING_RUNS}")
    if observed.rehearsals is None:
        return Rehearsed(False, observed.why("outcomes"))
    plan = plan_digest(agent.name, strategy, (goes.source, goes.version), (goes.target, agent.version))
    last = max((each for each in observed.rehearsals if each.plan == plan), key=lambda each: each.ended, default=None)
    how = f"`outrider migrate run {agent.name} --to {goes.target} --rehearse` does it"
    if last is None:
        return Rehearsed(False, f"it never was; {how}")
    age_s = observed.at - last.ended
    said = f"by migration {last.id}, {age_s / 3600:.1f} h ago"
    return Rehearsed(True, said) if 0 <= age_s <= REHEARSED_S else Rehearsed(False, f"{said}; {how}")
