"""Following migrations by their journals until a state is reached, or cannot be any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from msgspec import Struct, field

from outrider.errors import ConsulError
from outrider.migration.staged.desk import Desk
from outrider.migration.staged.records import End, Journal, RiskNote, Strategy
from outrider.migration.staged.report import StepRow, report_of

State = Literal["staged", "cutover", "finalised", "rolled_back"]
POLL_S = 0.2
PATIENCE_S = 30.0  # an election of Consul's servers
Warm = Callable[[Journal], bool]


class Followed(Struct, frozen=True):
    """How one migration stands.

    verdict: what the judge said last, with the counts that it said that of; timings: seconds of each step, by name
    """

    id: str
    agent: str
    strategy: Strategy
    source: End
    target: End
    state: str
    phase: str
    seconds: float
    reason: str = ""
    verdict: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    risk: RiskNote | None = None
    approved_by: tuple[str, ...] = ()
    next: tuple[str, ...] = ()


def followed(journal: Journal) -> Followed:
    """How it stands now."""
    report = report_of(journal, time.time())
    state = "rollback" if report.phase == "rollback" and journal.ended is None else report.state
    verdicts = [row.evidence for row in report.rows if "verdict" in row.evidence]
    return Followed(
        report.id,
        report.agent,
        report.strategy,
        report.source,
        report.target,
        state,
        report.phase,
        report.total_s,
        report.reason,
        verdicts[-1] if verdicts else {},
        {row.what: row.took_s for row in report.rows if row.phase and row.took_s is not None},
        report.risk,
        report.approved_by,
        report.next,
    )


def follow(
    desk: Desk, ids: Sequence[str], goal: State, say: Callable[[str], None], wait_s: float, warm: Warm = bool
) -> tuple[list[Followed], str]:
    """Returns how they stand, and why they are not there. Raises ConsulError if Consul stays away."""
    began = answered = time.monotonic()
    told: dict[str, int] = {}
    while True:
        try:
            journals = [desk.get(migration) for migration in ids]
            there = [reached(journal, goal, warm) for journal in journals]
            answered = time.monotonic()
        except ConsulError:
            if time.monotonic() - answered > PATIENCE_S:
                raise
            time.sleep(POLL_S)
            continue
        for journal in journals:
            _tell(journal, told, say)
        problems = [problem for journal in journals if (problem := _problem(journal, goal))]
        late = time.monotonic() - began > wait_s
        if problems or late or all(there):
            break
        time.sleep(POLL_S)
    found = [followed(journal) for journal in journals]
    if late:
        problems += [_late(one, wait_s) for one, is_there in zip(found, there, strict=True) if not is_there]
    return found, "\n".join(problems)


def _tell(journal: Journal, told: dict[str, int], say: Callable[[str], None]) -> None:
    """What is new in its journal."""
    rows = report_of(journal, time.time()).rows
    for row in rows[told.get(journal.id, 0) :]:
        say(line_of(journal, row))
    told[journal.id] = len(rows)


def line_of(journal: Journal, row: StepRow) -> str:
    """One line of progress."""
    phase = f"{row.phase}: " if row.phase else ""
    said = f": {row.said}" if row.said else ""
    return f"{journal.spec.agent}: {phase}{row.what}{said}"


def reached(journal: Journal, goal: State, warm: Warm = bool) -> bool:
    """Whether it is as far as that; staged: the new instance is well, its state on the way, and the cutover waits."""
    if journal.ended is not None:
        return True
    begun = {entry.step for entry in journal.entries if entry.what == "begun"}
    if goal == "staged":
        return ("copy" if journal.spec.strategy == "state" else "start") in begun and warm(journal)
    return goal == "cutover" and "verify" in begun


def _problem(journal: Journal, goal: State) -> str:
    """Why it will never be there, with the commands that are next."""
    found = followed(journal)
    wrong = {"finalised"} if goal == "rolled_back" else {"rolled_back", "cancelled"}
    if found.state not in {"held", "broken", *wrong}:
        return ""
    said = found.state.replace("_", " ")
    return f"{found.agent}: migration {found.id} is {said}: {found.reason}{_next(found)}"


def _late(found: Followed, wait_s: float) -> str:
    where = f"{found.state}, {found.phase}" if found.phase else found.state
    return f"{found.agent}: migration {found.id} is not there after {wait_s:g} s, and goes on: {where}{_next(found)}"


def _next(found: Followed) -> str:
    return "".join(f"\n  {command}" for command in found.next[:2])
