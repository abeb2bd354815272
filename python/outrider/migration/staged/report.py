"""A migration for people and programs: where it is, what happened, and what may be done next. Pure."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from outrider.migration.staged.records import End, Entry, Journal, Policy, RiskNote, Strategy
from outrider.migration.staged.sight import Wait
from outrider.migration.staged.steps import APPROVAL, FORWARD
from outrider.migration.staged.story import Story, story_of

PHASES = {step.name: step.phase for steps in FORWARD.values() for step in steps} | {APPROVAL: "prepare"}


class StepRow(Struct, frozen=True):
    """One line of the journal. `at`: Unix seconds; `took_s`: until the next one, None for the last."""

    what: str
    phase: str
    at: float
    by: str
    said: str = ""
    took_s: float | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


class MigrationReport(Struct, frozen=True):
    """One migration.

    state: waiting, running, paused, held, finalised, rolled_back, cancelled, rehearsed or broken
    phase: prepare, canary, cutover, verify, rollback or held; empty before the first step
    waits: what it waits for now, as its driver says; person: that is a person
    total_s: from asking to the end, or until `now` while it runs
    next: commands that may follow
    rehearse: it ends before its cutover
    """

    id: str
    agent: str
    strategy: Strategy
    source: End
    target: End
    state: str
    phase: str
    policy: Policy
    by: str
    at: float
    total_s: float
    why: str = ""
    reason: str = ""
    waits: str = ""
    person: bool = False
    risk: RiskNote | None = None
    approved_by: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    rows: tuple[StepRow, ...] = ()
    next: tuple[str, ...] = ()
    rehearse: bool = False


class MigrationsReport(Struct, frozen=True):
    """All of them, the newest last. `problems`: journals that cannot be followed."""

    migrations: tuple[MigrationReport, ...]
    problems: tuple[str, ...] = ()


def report_of(journal: Journal, now: float, waits: Wait | None = None) -> MigrationReport:
    """`now`: Unix seconds."""
    spec, story = journal.spec, story_of(journal)
    ended = journal.ended
    return MigrationReport(
        id=spec.id,
        agent=spec.agent,
        strategy=spec.strategy,
        source=spec.source,
        target=spec.target,
        state=_state(journal, story),
        phase=_phase(story),
        policy=spec.policy,
        by=spec.by,
        at=spec.at,
        total_s=round((ended.at if ended else now) - spec.at, 3),
        why=spec.why,
        reason=journal.broken or story.reason or (ended.said if ended else ""),
        waits=waits.why if waits and not ended else "",
        person=bool(waits and waits.person and not ended),
        risk=spec.risk,
        approved_by=story.approved_by,
        after=spec.after,
        rows=tuple(_rows(journal.entries)),
        next=_next(journal, story),
        rehearse=spec.rehearse,
    )


def _state(journal: Journal, story: Story) -> str:
    if journal.broken:
        return "broken"
    if story.outcome:
        return story.outcome
    if story.direction == "held":
        return "held"
    if story.paused and story.direction == "forward":
        return "paused"
    return "running" if story.step or story.direction == "back" else "waiting"


def _phase(story: Story) -> str:
    if story.direction == "held":
        return "held"
    return "rollback" if story.direction == "back" else PHASES.get(story.step, "")


def _rows(entries: tuple[Entry, ...]) -> list[StepRow]:
    rows = []
    for index, entry in enumerate(entries):
        following = entries[index + 1] if index + 1 < len(entries) else None
        what = entry.step or entry.outcome or entry.what
        phase = PHASES.get(entry.step, "rollback") if entry.what == "begun" else ""
        took_s = round(following.at - entry.at, 3) if following else None
        said = ": ".join(filter(None, (f"the {entry.approves}" if entry.approves else "", entry.said)))
        rows.append(StepRow(what, phase, entry.at, entry.by, said, took_s, entry.evidence))
    return rows


def _next(journal: Journal, story: Story) -> tuple[str, ...]:
    show = f"outrider migrate show {journal.id}"
    if story.outcome == "rehearsed" and not journal.broken:
        target, source = journal.spec.target, journal.spec.source
        return (f"outrider migrate run {journal.spec.agent} --instance {source.instance} --to {target.host}", show)
    if journal.broken or story.outcome:
        return (show,)
    if story.direction == "held":
        resolve = f"outrider migrate resolve {journal.id}"
        return (f"{resolve} --keep", f"{resolve} --back", show)
    if story.direction == "back":
        return (f"outrider migrate watch {journal.id}",)
    steer = "resume" if story.paused else "pause"
    return (
        f"outrider migrate watch {journal.id}",
        *_approve(journal, story),
        f"outrider migrate {steer} {journal.id}",
        f"outrider migrate rollback {journal.id}",
    )


def _approve(journal: Journal, story: Story) -> tuple[str, ...]:
    command = f"outrider migrate approve {journal.id}"
    if story.asks == "verdict" and journal.spec.policy.undecided == "hold":
        return (f"{command} --verdict",)
    return (command,) if story.asks == "cutover" else ()
