"""How a migration that is not there yet looks: what will be done in which order, and by what it will be judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from outrider.cli.output import count
from outrider.migration.staged.preview import PlanReport, PlansReport, Sensed, StepPlan
from outrider.migration.staged.records import End, Strategy

UNDECIDED = {"hold": "a person decides", "rollback": "it goes back", "accept": "it stays"}


def plans_lines(report: PlansReport) -> list[str]:
    """All of them, with the waves if there are several."""
    lines: list[str] = []
    if len(report.plans) > 1:
        for number, wave in enumerate(report.waves, 1):
            lines.append(f"wave {number} ({len(wave)}): {', '.join(wave)}")
        lines += ["each wave begins when the one before is finalised", ""]
    for plan in report.plans:
        lines += [*plan_lines(plan), ""]
    return lines


def plan_lines(plan: PlanReport) -> list[str]:
    """One."""
    lines = [move_of(plan.agent, plan.strategy, plan.source, plan.target, rehearse=plan.rehearse)]
    rows = [(step.phase, step.name, f"at most {step.limit_s:g} s", step.does) for step in plan.steps]
    lines += columns(rows)
    return lines + [f"  {name:<9} {said}" for name, said in _facts(plan)]


def move_of(agent: str, strategy: Strategy, source: End, target: End, *, rehearse: bool = False) -> str:
    """From where to where, in one line."""
    where = f"{source.host} -> {target.host}" if source.host != target.host else f"stays on {source.host}"
    version = (
        f"version {source.version[:8]} -> {target.version[:8]}"
        if source.version != target.version
        else f"version {source.version[:8]}"
    )
    how = f"a rehearsal of {strategy}" if rehearse else strategy
    return f"{agent}: {source.instance} -> {target.instance}, {where}, {version} ({how})"


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of cells under each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip() for row in rows
    ]


def _facts(plan: PlanReport) -> Iterator[tuple[str, str]]:
    if plan.calls_s is not None:
        yield "traffic", f"{plan.source.instance} answers {plan.calls_s:.1f} calls a second"
    for sensed in plan.judge:
        yield "judge", sensed_said(sensed)
    if plan.vram and not plan.rehearse:
        yield "vram", plan.vram
    if plan.rehearse:
        yield "rehearsal", f"then {plan.target.instance} goes again; no call goes to it, and nobody need approve it"
    else:
        yield "undecided", f"without a verdict by then: {UNDECIDED[plan.policy.undecided]}"
        yield "approval", _approval(plan.steps)
    if plan.room:
        yield "room", plan.room
    if plan.risk:
        yield "risk", f"{plan.risk.points} points, {plan.risk.band}{_because(plan.risk.said)}"
    if plan.after:
        yield "after", ", ".join(plan.after)


def sensed_said(sensed: Sensed) -> str:
    """What one step could see of one signal."""
    if sensed.signal == "probes":
        return f"{sensed.step}: it counts no calls, so whether it passes whenever it is looked at"
    seen = (
        f"worse shows from {sensed.detectable:.1%} on"
        if sensed.detectable < 1.0
        else "too few to show anything"
    )  # fmt: skip
    return f"{sensed.step}: {sensed.signal} of some {sensed.samples}: {sensed.tolerated:.1%} is tolerated, {seen}"


def _approval(steps: tuple[StepPlan, ...]) -> str:
    gated = next((step for step in steps if step.approvals), None)
    return f"{count(gated.approvals, 'person').replace('persons', 'people')} before `{gated.name}`" if gated else "none"


def _because(said: tuple[str, ...]) -> str:
    return f": {'; '.join(said)}" if said else ""
