"""`outrider agents [NAME]`: one line an agent, or all about one: what it needs, who needs it, and how those are."""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from outrider.cli.fleet_report import fleet_report
from outrider.cli.output import clipped, console, count, print_json, status_text, table
from outrider.cli.status import instances_table, problems_table, summary_line
from outrider.cli.suggest import unknown
from outrider.errors import ConsulError
from outrider.fleet.spec import Agent
from outrider.host.reports import InstanceReport, StatusReport

if TYPE_CHECKING:
    from rich.text import Text


class Neighbour(Struct, frozen=True):
    """An agent at the other end of a need, and its health. `declared`: instances that should run.

    warning: instances that serve, but lack a need of their own
    """

    agent: str
    required: bool
    fallback: str
    passing: int
    declared: int
    warning: int = 0


class AgentView(Struct, frozen=True):
    """One agent of `agents --json`. `declared` leaves out what was stopped by request."""

    name: str
    mode: str
    tier: str
    description: str
    model: str
    ports: dict[str, int | str]
    passing: int
    declared: int
    needs: tuple[Neighbour, ...]
    needed_by: tuple[Neighbour, ...]
    instances: tuple[InstanceReport, ...]
    warning: int = 0


def agents(args: argparse.Namespace) -> int:
    """All agents, or one."""
    report = fleet_report(args.runtime)
    views = views_of(report, declared_agents(args.runtime))
    if args.name and args.name not in views:
        raise unknown(args.name, report)
    if args.json:
        print_json(views[args.name] if args.name else list(views.values()))
    elif args.name:
        _show_one(views[args.name])
    else:
        out = console()
        out.print(summary_line(report))
        out.print()
        headings = ["agent", "passing", "mode", "tier", "hosts", "needs"]
        out.print(table(headings, clipped([_row(view) for view in views.values()], out.width, headings)))
    return 0


def declared_agents(runtime: Path) -> dict[str, Agent]:
    """What Consul holds of each agent; nothing, and a word on stderr, if it does not answer."""
    from outrider.cli.where import consul_of
    from outrider.registry.kv import list_docs
    from outrider.registry.layout import FLEET, AgentDoc

    try:
        return {name: doc.agent for name, (doc, _) in list_docs(consul_of(runtime), FLEET, AgentDoc).docs.items()}
    except ConsulError as error:
        print(f"outrider: needs, tiers and modes are not known: {error.message}", file=sys.stderr)
        return {}


def views_of(report: StatusReport, declared: Mapping[str, Agent]) -> dict[str, AgentView]:
    """Each agent with its instances and both ends of its needs, by name. Pure."""
    instances: dict[str, list[InstanceReport]] = defaultdict(list)
    for item in report.instances:
        instances[item.agent].append(item)
    names = sorted(instances.keys() | declared.keys())
    needers: dict[str, list[Neighbour]] = defaultdict(list)
    needs: dict[str, list[Neighbour]] = defaultdict(list)
    for name in names:
        for need in declared[name].need_list() if name in declared else ():
            needs[name].append(Neighbour(need.agent, need.required, need.fallback, *_health(instances[need.agent])))
            needers[need.agent].append(Neighbour(name, need.required, need.fallback, *_health(instances[name])))
    return {name: _view(name, declared.get(name), needs[name], needers[name], instances[name]) for name in names}


def _view(
    name: str,
    agent: Agent | None,
    needs: list[Neighbour],
    needers: list[Neighbour],
    instances: list[InstanceReport],
) -> AgentView:
    passing, declared, warning = _health(instances)
    return AgentView(
        name=name,
        mode=agent.mode if agent else "",
        tier=agent.tier if agent else "",
        description=agent.description if agent else "",
        model=agent.model if agent else "",
        ports=dict(agent.ports) if agent else {},
        passing=passing,
        declared=declared,
        needs=tuple(needs),
        needed_by=tuple(needers),
        instances=tuple(instances),
        warning=warning,
    )


def _health(instances: list[InstanceReport]) -> tuple[int, int, int]:
    """Passing, those that should run, and those in warning."""
    found = Counter(item.status for item in instances if item.status != "stopped")
    return found["passing"], found.total(), found["warning"]


def _row(view: AgentView) -> list[str | Text]:
    hosts = ", ".join(sorted({item.host for item in view.instances}))
    needs = ", ".join(need.agent if need.required else f"{need.agent}?" for need in view.needs)
    return [view.name, _passing(view), view.mode, view.tier, hosts, needs]


def _passing(view: AgentView | Neighbour) -> Text:
    """1/1 in the colour of its health; stopped by request if nothing of it should run."""
    if view.declared == 0:
        return status_text("stopped")
    well = "passing" if view.passing == view.declared else "warning" if view.passing or view.warning else "critical"
    text = status_text(well)
    text.plain = f"{view.passing}/{view.declared}"
    return text


def _show_one(view: AgentView) -> None:
    out = console()
    facts = [view.mode, f"tier {view.tier}" if view.tier else "", f"model {view.model}" if view.model else ""]
    out.print(f"{view.name}: ", _passing(view), " passing", sep="", end="", markup=False)
    out.print("".join(f", {fact}" for fact in facts if fact), markup=False)
    if view.description:
        out.print(view.description, markup=False)
    if view.ports:
        out.print("ports: " + ", ".join(f"{name} {port}" for name, port in view.ports.items()), markup=False)
    out.print()
    out.print(instances_table(view.instances))
    if ill := [item for item in view.instances if item.status not in ("passing", "stopped")]:
        out.print()
        out.print(problems_table(ill))
    for title, neighbours in (("needs", view.needs), ("needed by", view.needed_by)):
        out.print()
        if not neighbours:
            out.print(f"{title} nothing" if title == "needs" else f"{title} nobody")
            continue
        rows: list[list[str | Text]] = [
            [item.agent, _passing(item), "required" if item.required else f"optional: {item.fallback or 'no fallback'}"]
            for item in neighbours
        ]
        out.print(table([f"{title} {count(len(neighbours), 'agent')}", "passing", "how"], rows, wrap=("how",)))
