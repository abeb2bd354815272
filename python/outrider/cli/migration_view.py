"""How a migration looks: what has been done and how long it took, what it waits for, and what can be done next."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from outrider.cli.migration_plan_view import columns, move_of
from outrider.cli.output import ago, table
from outrider.migration.staged.records import OUTCOMES
from outrider.migration.staged.report import MigrationReport, StepRow

if TYPE_CHECKING:
    from rich.table import Table

ENDS = (*OUTCOMES, "rollback", "held", "resolved")
LIVE = ("waiting", "running", "paused")
WELL = ("finalised", "rehearsed")


def lines_of(report: MigrationReport, *, evidence: bool = False) -> list[str]:
    """All about one. `evidence`: also what each verdict was concluded from, line by line of the journal."""
    move = move_of(report.agent, report.strategy, report.source, report.target, rehearse=report.rehearse)
    lines = [f"migration {report.id}", f"  {move}"]
    why = f": {report.why}" if report.why else ""
    lines.append(f"  asked for by {report.by} at {_clock(report.at)}{why}")
    if report.risk:
        lines.append(f"  risk {report.risk.points} points, {report.risk.band}")
    if report.policy.approvals:
        lines.append(f"  approved by {len(report.approved_by)} of {report.policy.approvals}: {_names(report)}")
    lines += ["", *(_journal(report) if evidence else _steps(report)), "", state_line(report)]
    lines += [f"  {line}" for line in _now(report)]
    return lines + [f"  next: {command}" for command in report.next if not (evidence and " show " in command)]


def screen(reports: Sequence[MigrationReport], height: int, trouble: str) -> list[str]:
    """What a terminal shows while it is watched: one whole, or one line each and those that want attention first."""
    lines = [time.strftime("%H:%M:%S"), *([f"no answer: {trouble}"] if trouble else [])]
    if len(reports) == 1:
        return (lines + lines_of(reports[0]))[:height]
    order = {"held": 0, "broken": 0, "rolled_back": 1, "cancelled": 1, "finalised": 3, "rehearsed": 3}
    rows = sorted(reports, key=lambda report: (not report.person, order.get(report.state, 2), report.at))
    shown = [f"{report.agent}: {state_line(report)}  {report.id}" for report in rows]
    room = max(1, height - len(lines) - 1)
    left = [f"and {len(shown) - room} more"] if len(shown) > room else []
    return [*lines, *shown[:room], *left]


def state_line(report: MigrationReport) -> str:
    """Where it is, in one line."""
    if report.state in OUTCOMES:
        said = report.state.replace("_", " ")
        return f"{said} after {report.total_s:.2f} s{_because(report)}"
    if report.state in ("held", "broken"):
        return f"{report.state.upper()}{_because(report)}"
    phase = f", {report.phase}" if report.phase else ""
    because = _because(report) if report.phase == "rollback" else ""
    return f"{report.state}{phase}, {report.total_s:.1f} s since it was asked for{because}"


def list_table(reports: Sequence[MigrationReport]) -> Table:
    """One line a migration."""
    rows = [
        [
            report.id,
            report.agent,
            f"{report.source.instance} on {report.source.host}",
            f"{report.target.instance} on {report.target.host}",
            report.state + (f": {report.phase}" if report.state in ("running", "paused") and report.phase else ""),
            f"{report.total_s:.1f} s",
            ago(report.at),
            _detail(report),
        ]
        for report in reports
    ]
    headings = ["migration", "agent", "from", "to", "state", "took", "ago", "detail"]
    return table(headings, rows)


def _detail(report: MigrationReport) -> str:
    waits = re.sub(r" \(`[^`]*`\)", "", report.waits)  # the command stands in `show`
    return waits or (report.reason if report.state not in WELL else "") or report.why or "-"


class News:
    """What has been told of one migration, and what is new."""

    def __init__(self) -> None:
        self._told = 0
        self._waits = ""
        self._state = ""

    def lines(self, report: MigrationReport) -> list[str]:
        """What is new: entries of the journal, what it waits for where that is a person, and the end."""
        lines = [f"{_clock(row.at)} {report.agent}: {_entry(row)}" for row in report.rows[self._told :]]
        self._told = len(report.rows)
        if report.person and report.waits != self._waits:
            lines += [f"{_clock(_time(report))} {report.agent}: waits: {report.waits}"]
            lines += [f"  next: {command}" for command in report.next]
        self._waits = report.waits if report.person else ""
        if report.state != self._state and report.state not in LIVE:
            lines += [f"{_clock(_time(report))} {report.agent}: {state_line(report)}"]
            lines += [f"  next: {command}" for command in report.next]
        self._state = report.state
        return lines


def _entry(row: StepRow) -> str:
    by = "" if row.phase else f" by {row.by}"
    return f"{row.phase + ': ' if row.phase else ''}{row.what.replace('_', ' ')}{by}{_said(row.said)}"


def _steps(report: MigrationReport) -> list[str]:
    """The steps that were begun, each with what came of it; the journal notes that with what follows."""
    marks = [row for row in report.rows if row.phase or row.what in ENDS]
    steps: list[tuple[str, ...]] = []
    for row, after in zip_longest(marks, marks[1:]):
        if row.phase:
            until = after.at if after else _time(report)
            came = after.said if after else "now"
            steps.append((row.phase, row.what, f"{max(0.0, until - row.at):.2f} s", came))
    return columns(steps) if steps else ["  no step was begun"]


def _journal(report: MigrationReport) -> list[str]:
    lines = []
    for number, row in enumerate(report.rows):
        took = f"  {row.took_s:.3f} s" if row.took_s is not None else ""
        lines.append(f"  {number:>3}  {_clock(row.at)}  {row.by}  {_phase(row)}{row.what}{took}")
        lines += [f"       {row.said}"] if row.said else []
        lines += [f"       {name}: {json.dumps(value)}" for name, value in row.evidence.items()]
    return lines


def _now(report: MigrationReport) -> Iterator[str]:
    """What is waited for, by whom, and since when."""
    if report.state not in LIVE or not report.rows:
        return
    last = report.rows[-1]
    since = max(0.0, _time(report) - last.at)
    if report.waits:
        whom = "a person is waited for" if report.person else "waits"
        yield f"{whom}, for {since:.1f} s: {report.waits}"
    elif last.phase:
        yield f"for {since:.1f} s; {last.by} drives it, and knows what is waited for"
    else:
        yield f"for {since:.1f} s no shim has begun a step; `outrider doctor` tells if none is elected"
    limit_s = {"canary": report.policy.canary_s, "verify": report.policy.verify_s}.get(last.what)
    if limit_s is not None and not report.person:
        yield f"a verdict comes within {max(0.0, limit_s - since):.0f} s, or {_undecided(report)}"


def _undecided(report: MigrationReport) -> str:
    if report.phase == "canary":
        return "it goes on, and is judged after the cutover"
    return {"hold": "a person decides", "rollback": "it goes back", "accept": "it stays"}[report.policy.undecided]


def _because(report: MigrationReport) -> str:
    return f": {report.reason}" if report.reason else ""


def _names(report: MigrationReport) -> str:
    return ", ".join(report.approved_by) or "nobody yet"


def _phase(row: StepRow) -> str:
    return f"{row.phase}: " if row.phase else ""


def _said(text: str) -> str:
    return f": {text}" if text else ""


def _time(report: MigrationReport) -> float:
    """The shim's time as it said this."""
    return report.at + report.total_s


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at)) + f"{at % 1:.3f}"[1:]
