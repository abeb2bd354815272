"""How a migration is judged, and who must agree: as its risk says, unless whoever asks says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from outrider.errors import MigrationRefused
from outrider.migration.risk.assess import REHEARSAL, Gate, Risk
from outrider.migration.risk.gather import Shim
from outrider.migration.risk.survey import Asked, of_running
from outrider.migration.staged.plan import Ask
from outrider.migration.staged.records import Policy, RiskNote, Spec
from outrider.registry.client import Consul

MOST_SAID = 6  # contributions that a journal keeps; `outrider risk AGENT` shows all

Judged = Callable[[Ask, Spec], tuple[Policy, RiskNote]]


def by_risk(consul: Consul, shim: Shim, releases: Path | None = None) -> Judged:
    """Assesses each agent as the fleet is now. What it returns raises MigrationRefused for a gate that is not met."""

    def judged(ask: Ask, made: Spec) -> tuple[Policy, RiskNote]:
        asked = Asked(ask.agent, made.target.host, readable=ask.readable, instance=made.source.instance, doc=ask.doc)
        (risk,) = of_running(consul, shim, asked, releases=releases)
        problems = unmet(risk, approved=ask.override, rehearse=ask.rehearse)
        if problems:
            raise MigrationRefused(problems, hint=f"`outrider risk {ask.agent}` shows all; `--override REASON` goes on")
        return policy_of(risk), note_of(risk, ask.override)

    return judged


def policy_of(risk: Risk) -> Policy:
    """What the band asks for."""
    band = risk.band
    return Policy(verify_s=band.verify_s or Policy().verify_s, undecided=band.undecided, approvals=band.approvals)


def note_of(risk: Risk, override: str = "") -> RiskNote:
    """For the journal: the points, and what most of them are for."""
    worst = sorted((each for each in risk.contributions if each.points), key=lambda each: -each.points)[:MOST_SAID]
    said = tuple(f"{each.key} {each.name} +{each.points}: {each.said}" for each in worst)
    return RiskNote(risk.points, risk.band.name, (*said, *((f"overridden: {override}",) if override else ())))


def unmet(risk: Risk, *, approved: str = "", rehearse: bool = False) -> list[str]:
    """Why it may not be done. `approved`: why somebody goes on all the same; nothing goes on when it cannot be done.

    rehearse: it is the rehearsal that is to come first
    """
    if risk.stop:
        return [f"{risk.agent}: {risk.stop}"]
    if approved:
        return []
    if risk.band.strategy == "refused":
        return [f"{risk.agent}: {risk.points} points are more than any migration may have"]
    failing = [gate for gate in risk.gates if gate.met is False and not (rehearse and gate.name == REHEARSAL)]
    return [f"{risk.agent} (risk {risk.points}, {risk.band.name}): {_said(gate)}" for gate in failing]


def _said(gate: Gate) -> str:
    return f"{gate.name}: {gate.wanted}" + (f"; {gate.evidence}" if gate.evidence else "")
