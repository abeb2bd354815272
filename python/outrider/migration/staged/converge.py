"""Migrations as a state that is to be reached: what the modules do. Run again, it goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from outrider.discovery.api import runtime_dir
from outrider.errors import FleetError, MigrationRefused, OutriderError
from outrider.host.shim_client import ShimClient
from outrider.migration.publication import Target
from outrider.migration.risk.gather import plans_rehearsed
from outrider.migration.staged.ask import create, plans
from outrider.migration.staged.by_risk import by_risk
from outrider.migration.staged.desk import Desk, read_fleet
from outrider.migration.staged.follow import Followed, State, follow, followed, reached
from outrider.migration.staged.preview import PlanReport, report
from outrider.migration.staged.records import Journal
from outrider.migration.staged.story import story_of
from outrider.migration.staged.wanted import (
    Order,
    concerns,
    documents,
    lacking,
    resolution,
    selected,
    under_way,
    who,
    wish,
)
from outrider.migration.steps import WELL
from outrider.migration.store import ConsulStore
from outrider.registry.client import Consul, connect

Say = Callable[[str], None]
GOALS: dict[str, State] = {"staged": "staged", "cutover": "cutover"}  # to be verified is to be finalised


class Shown(Struct, frozen=True):
    """Where an instance is and will be, for `--diff`."""

    before_header: str
    after_header: str
    before: str
    after: str


class Converged(Struct):
    """What was done. `problem`: why it did not get there."""

    changed: bool
    migrations: list[Followed]
    plans: tuple[PlanReport, ...] = ()
    waves: tuple[tuple[str, ...], ...] = ()
    diff: list[Shown] = field(default_factory=list)
    progress: list[str] = field(default_factory=list)
    seconds: float = 0.0
    problem: str = ""


class Overview(Struct, frozen=True):
    """Migrations, the newest last. `problems`: journals that cannot be followed."""

    migrations: list[Followed]
    problems: tuple[str, ...] = ()


def overview(
    target: Target, *, agent: str | None = None, migration: str | None = None, active: bool = False
) -> Overview:
    """Those of one agent, or one, or all. Raises UnknownMigration, ConsulError."""
    desk = Desk(connect(target.address()))
    if migration:
        return Overview([followed(desk.get(migration))])
    journals, problems = desk.journals()
    mine = [j for j in journals if agent in (None, j.spec.agent) and not (active and j.ended)]
    return Overview([followed(journal) for journal in mine], problems)


def converge(target: Target, order: Order, say: Say = lambda line: None, *, dry: bool = False) -> Converged:
    """Bring it about. Raises what Consul and the plan say; what a migration itself ends with is a `problem`."""
    consul, began = connect(target.address()), time.monotonic()
    progress: list[str] = []

    def tell(line: str) -> None:
        progress.append(line)
        say(line)

    going_back = order.state in ("rolled_back", "absent")
    way = _resolve if order.resolve or order.accept_loss else _back if going_back else _forward
    result = way(consul, order, tell, dry=dry or order.state == "planned")
    result.changed &= order.state != "planned"
    result.progress, result.seconds = progress, round(time.monotonic() - began, 3)
    return result


def _forward(consul: Consul, order: Order, say: Say, *, dry: bool) -> Converged:
    """Attach to what is under way, ask for the rest, and follow all of it."""
    desk, goal = Desk(consul), GOALS.get(order.state, "finalised")
    wanted = None
    if order.migration:
        attached = [desk.get(order.migration)]
    else:
        fleet = read_fleet(consul)
        docs = documents(order, fleet)
        names = lacking(order, fleet, docs)
        attached = under_way(order, desk.journals()[0], fleet, docs, names)
        left = [name for name in names if name not in {journal.spec.agent for journal in attached}]
        wanted = wish(order, left, docs) if left else None
    releases = Path(order.releases_dir) if order.releases_dir else None
    policy = by_risk(consul, ShimClient(Path(runtime_dir())), releases)
    found = plans(consul, wanted, policy=policy) if wanted else []
    if order.rehearse:
        done = plans_rehearsed(desk.journals()[0], time.time())
        found = [plan for plan in found if plan.spec.plan not in done]
    planned = report(found)
    warm = _warm(consul)
    behind = any(not reached(journal, goal, warm) for journal in attached)
    shown = _diff(planned.plans)
    result = Converged(bool(found) or behind, [followed(j) for j in attached], planned.plans, planned.waves, shown)
    if dry:
        return result
    for spec in create(consul, found):
        say(f"{spec.agent}: migration {spec.id}: {spec.source.instance} becomes {spec.target.instance}")
    ids = [*(journal.id for journal in attached), *(plan.spec.id for plan in found)]
    if order.state == "cutover":
        _approve(desk, ids, order.why)
    result.migrations, result.problem = follow(desk, ids, goal, say, order.wait_s, warm)
    return result


def _approve(desk: Desk, ids: Sequence[str], why: str) -> None:
    for journal in map(desk.get, ids):
        story = story_of(journal)
        lacking = journal.spec.policy.approvals > len(story.approved_by) and who() not in story.approved_by
        if story.asks == "cutover" and lacking:
            desk.approve(journal.id, who(), why)


def _warm(consul: Consul) -> Callable[[Journal], bool]:
    """Whether the new instance passes, as Consul knows; one that must not start before the old one ends is as it is."""

    def warm(journal: Journal) -> bool:
        target = journal.spec.target
        seen = ConsulStore(consul).observe([target.host]).get((target.instance, target.host))
        return journal.spec.strategy == "cold" or (seen is not None and seen.status in WELL)

    return warm


def _back(consul: Consul, order: Order, say: Say, *, dry: bool) -> Converged:
    """Everything that is under way goes back."""
    desk = Desk(consul)
    names = () if order.migration else selected(order, read_fleet(consul))
    mine = [journal for journal in desk.journals()[0] if concerns(order, journal, names)]
    active = [journal for journal in mine if journal.ended is None]
    result = Converged(bool(active), [followed(journal) for journal in active])
    if order.state == "rolled_back" and not active:
        result.migrations = [followed(journal) for journal in mine[-1:]]
        result.problem = _too_late(mine[-1] if mine else None)
    if dry or not active:
        return result
    for journal in active:
        state = followed(journal).state
        if state == "held":
            desk.resolve(journal.id, who(), "back", order.why)
        elif state != "rollback":
            desk.rollback(journal.id, who(), order.why)
    ids = [journal.id for journal in active]
    result.migrations, result.problem = follow(desk, ids, "rolled_back", say, order.wait_s)
    return result


def _resolve(consul: Consul, order: Order, say: Say, *, dry: bool) -> Converged:
    """A person decides about one that is held; one that goes that way already is followed."""
    decision, desk = resolution(order), Desk(consul)
    journal = desk.get(order.migration or "")
    story, keep = story_of(journal), decision == "keep"
    resolved = any(entry.what == "resolved" for entry in journal.entries)
    on_its_way = story.direction == "forward" and resolved if keep else story.direction == "back"
    if journal.ended is None and not on_its_way:
        desk.decided(journal, who(), decision, order.why)
        if not dry:
            desk.resolve(journal.id, who(), decision, order.why)
    goal: State = "finalised" if keep else "rolled_back"
    result = Converged(journal.ended is None, [followed(journal)])
    if not dry:
        result.migrations, result.problem = follow(desk, [journal.id], goal, say, order.wait_s)
    return result


def _too_late(last: Journal | None) -> str:
    if last is None:
        return "nothing was migrated that could go back\n  outrider migrate list"
    if last.ended is None or last.ended.outcome != "finalised":
        return ""
    again = f"outrider migrate run {last.spec.agent} --to {last.spec.source.host}"
    return f"migration {last.id} is finalised, and its old instance gone; to move it back is another one\n  {again}"


def _diff(found: Iterable[PlanReport]) -> list[Shown]:
    return [
        Shown(
            f"placement of {plan.agent}",
            f"placement of {plan.agent}",
            f"{plan.source.instance} on {plan.source.host}, version {plan.source.version}\n",
            f"{plan.target.instance} on {plan.target.host}, version {plan.target.version}\n",
        )
        for plan in found
    ]


def details(error: OutriderError) -> dict[str, Any]:
    """What a failed module returns beside the message."""
    return {"problems": error.problems} if isinstance(error, FleetError | MigrationRefused) else {}
