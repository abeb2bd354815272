"""The risk of one migration: score, band, strategy and gates, each with its evidence.

    risk = assess(published, observed, Question("Memory", target="gpu2"))

Pure: `published` are the fleet's documents, `observed` what a running fleet shows (outrider.migration.risk.gather reads
both from Consul and the shim). Whoever moves an agent does what `risk.band` and `risk.gates` say: `risk.band.strategy`
is direct, canary, staged or refused; a gate that is not met stops it; `risk.stop` forbids it whatever the points.
"""

from __future__ import annotations

from msgspec import Struct

from outrider.errors import UnknownAgent
from outrider.fleet.rules import nearest
from outrider.fleet.spec import Fleet
from outrider.migration.risk.aggravators import PROOF_DAYS, aggravating, proof_age
from outrider.migration.risk.factors import STATES
from outrider.migration.risk.facts import declared, from_source
from outrider.migration.risk.landing import Landing, landing
from outrider.migration.risk.measures import (
    known_outcomes,
    of_change,
    of_history,
    of_place,
    of_use,
)
from outrider.migration.risk.observed import Observations, Published, Question
from outrider.migration.risk.rehearsed import Rehearsed, rehearsed
from outrider.migration.risk.score import Assessment, Band, Contribution, Measure, probability, score

REHEARSAL = "rehearsal"


class Gate(Struct, frozen=True):
    """What must be before, or happens after. `met`: None if that is only known later, or nobody could see it."""

    name: str
    wanted: str
    met: bool | None
    evidence: str = ""


class Risk(Struct, frozen=True):
    """One migration. `points` of 35 and more, `unknown` of them for want of a fact; `source`, `target`: hosts.

    choice: why this target; floor: why the band is higher than its points; stop: why it may not be done at all
    probability: of failure, in words
    """

    agent: str
    mode: str
    source: str
    target: str
    choice: str
    points: int
    likelihood: int
    impact: int
    extra: int
    unknown: int
    band: Band
    contributions: tuple[Contribution, ...]
    gates: tuple[Gate, ...]
    floor: str
    stop: str
    probability: str
    weights: int

    @property
    def not_known(self) -> tuple[Contribution, ...]:
        """What took the worst value for want of a fact."""
        return tuple(each for each in self.contributions if not each.measured)


def assess(published: Published, observed: Observations, question: Question) -> Risk:
    """The risk of what is asked. Raises UnknownAgent, and OutriderError for a target that the fleet does not have."""
    name = question.agent
    if name not in published.agents:
        raise UnknownAgent(f"the fleet has no agent {name}", hint=nearest(name, published.agents))
    goes = landing(published, name, question.target, question.instance)
    fleet = Fleet("", {key: doc.agent for key, doc in published.agents.items()})
    was = published.agents[name].at(goes.version)
    measures = declared(fleet, name, was.agent if was else None)
    if question.source is None:
        measures["L5"] = Measure(None, question.unread)
    else:
        measures |= from_source(question.source, measures["I1"])
    measures |= of_change(question)
    measures |= of_history(observed, name, goes)
    measures |= of_place(observed, goes)
    measures |= of_use(observed, name)
    extra = aggravating(published, observed, question, measures["I1"])
    stop = goes.refusal or _without_owner(published, observed, name, measures["I1"])
    practice = rehearsed(observed, published.agents[name], goes)
    scored = score(measures, extra, rehearsed=practice.met, stop=stop)
    return _risk(published, observed, question, goes, scored, practice)


def _without_owner(published: Published, observed: Observations, name: str, state: Measure) -> str:
    """A single writer's state is not moved while nobody knows who writes it."""
    doc = published.placements.get(name)
    writer = state.value is not None and state.value >= STATES.index("single writer")
    runs = observed.running and doc is not None and any(placed.state == "run" for placed in doc.instances)
    if published.agents[name].agent.mode != "singleton" or not writer or not runs:
        return ""
    if observed.leases is None:
        return f"who holds its lease is not known: {observed.why('leases')}"
    return "" if observed.leases.get(name) else "nobody holds its lease: who writes its state is not known"


def _risk(
    published: Published,
    observed: Observations,
    question: Question,
    goes: Landing,
    scored: Assessment,
    practice: Rehearsed,
) -> Risk:
    return Risk(
        agent=question.agent,
        mode=published.agents[question.agent].agent.mode,
        source=goes.source,
        target=goes.target,
        choice=goes.choice,
        points=scored.points,
        likelihood=scored.likelihood,
        impact=scored.impact,
        extra=scored.extra,
        unknown=sum(each.points for each in scored.contributions if not each.measured),
        band=scored.band,
        contributions=scored.contributions,
        gates=_gates(observed, question, scored.band, practice),
        floor=scored.floor,
        stop=scored.stop,
        probability=probability(*known_outcomes(observed)),
        weights=scored.weights,
    )


def _gates(observed: Observations, question: Question, band: Band, practice: Rehearsed) -> tuple[Gate, ...]:
    """In the order in which a migration meets them."""
    if band.strategy == "refused":
        return ()
    found = []
    for level in band.backup:
        age = proof_age(observed, question.agent, level)
        met = 0 <= age.value <= PROOF_DAYS if age.value is not None else None if observed.backups is None else False
        found.append(Gate(f"backup of {level}", f"proved by a restore within {PROOF_DAYS} days", met, age.evidence))
    if band.rehearsal:
        found.append(Gate(REHEARSAL, "of this very plan, within a day", practice.met, practice.evidence))
    if band.approvals:
        people = "1 person agrees" if band.approvals == 1 else f"{band.approvals} people agree"
        found.append(Gate("approval", people, None))
    undecided = "goes back" if band.undecided == "rollback" else "waits for a person"
    found.append(Gate("judge", f"well for {_span(band.verify_s)} after the cutover; undecided, it {undecided}", None))
    return tuple(found)


def _span(seconds: int) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
