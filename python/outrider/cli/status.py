"""`outrider status [--watch]`: every instance of the fleet, problems first."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from outrider.cli.fleet_report import fleet_report
from outrider.cli.output import ago, console, count, print_json, status_text, table
from outrider.errors import EXIT_CONSUL_UNREACHABLE, EXIT_FAILED
from outrider.host.reports import InstanceReport, StatusReport

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

WELL = ("passing", "stopped")
REFRESH_S = 0.5


def status(args: argparse.Namespace) -> int:
    """Show the fleet once, or until Ctrl-C."""
    if args.watch:
        return _watch(args)
    report = fleet_report(args.runtime)
    print_json(report) if args.json else console().print(fleet_view(report))
    return exit_code(report)


def exit_code(report: StatusReport) -> int:
    """3 if Consul is away, for then other hosts may be otherwise; 1 if one that should run does not pass."""
    if report.summary.consul != "reachable":
        return EXIT_CONSUL_UNREACHABLE
    ill = any(item.status not in ("passing", "warning", "stopped") for item in report.instances)
    return EXIT_FAILED if ill else 0


def fleet_view(report: StatusReport, rows: int | None = None) -> Group:
    """Summary, problems with their reason, then the rest by host; at most `rows` lines in all."""
    from rich.console import Group
    from rich.text import Text

    problems = [item for item in report.instances if item.status not in WELL]
    rest = sorted((i for i in report.instances if i.status in WELL), key=lambda i: (i.host, i.instance))
    parts: list[Text | Table] = [summary_line(report)]
    if problems:
        parts += [Text(""), problems_table(problems)]
    left = len(rest) if rows is None else max(0, rows - 4 - (2 + len(problems) if problems else 0))
    if rest[:left]:
        parts += [Text(""), instances_table(rest[:left])]
    if rest[left:]:
        parts.append(Text(f"and {count(len(rest) - left, 'instance')} more", style="dim"))
    return Group(*parts)


def summary_line(report: StatusReport) -> Text:
    """The fleet in one line."""
    from rich.text import Text

    summary = report.summary
    counts = Counter(item.status for item in report.instances if item.status != "passing")
    well = summary.passing + counts["stopped"] == summary.instances
    line = Text(f"fleet {report.fleet}: ")
    line.append(f"{summary.passing}/{summary.instances} passing", style="green" if well else "bold red")
    for state, number in counts.most_common():
        line.append(f", {number} {state}", style={"stopped": "", "warning": "yellow"}.get(state, "bold red"))
    line.append(f"; {count(summary.agents, 'agent')} on {count(summary.hosts, 'host')}; ")
    reachable = summary.consul == "reachable"
    line.append("Consul answers" if reachable else "Consul does not answer", style="" if reachable else "bold red")
    for host, reason in report.drained.items():
        line.append(f"; {host} is drained{f' ({reason})' if reason else ''}", style="yellow")
    oldest = max((item.age_s for item in report.instances), default=0.0)
    if not reachable and oldest > 0:
        line.append(f" (other hosts as of {oldest:.0f} s ago)", style="bold red")
    return line


def instances_table(reports: Iterable[InstanceReport]) -> Table:
    """One line an instance. Its name begins with its agent's."""
    rows: list[list[str | Text]] = [
        [
            report.instance,
            report.host,
            f"{report.address}:{report.port}" if report.port else "-",
            status_text(report.status),
            report.role,
            report.version[:8],
            ago(report.since),
        ]
        for report in reports
    ]
    return table(["instance", "host", "address", "status", "role", "version", "since"], rows)


def problems_table(reports: Iterable[InstanceReport]) -> Table:
    """One line an instance that is not well, with the reason."""
    rows: list[list[str | Text]] = [
        [report.instance, report.host, status_text(report.status), ago(report.since), report.detail or "-"]
        for report in sorted(reports, key=lambda report: (report.host, report.instance))
    ]
    return table(["problem", "host", "status", "since", "detail"], rows)


def _watch(args: argparse.Namespace) -> int:
    if args.json or not sys.stdout.isatty():
        return _watch_lines(args)
    from rich.live import Live

    out = console()
    with Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            live.update(fleet_view(fleet_report(args.runtime), out.height), refresh=True)
            time.sleep(REFRESH_S)


def _watch_lines(args: argparse.Namespace) -> int:
    """For programs and pipes: a line for each change."""
    before: dict[str, InstanceReport] = {}
    while True:
        report = fleet_report(args.runtime)
        now = {item.instance: item for item in report.instances}
        moved = [item for name, item in now.items() if name not in before or before[name].status != item.status]
        if args.json and (moved or before.keys() - now.keys()):
            print_json(report, lines=True)
        elif not args.json:
            _say(report, moved, first=not before)
            for gone in sorted(before.keys() - now.keys()):
                print(f"{gone}: removed", flush=True)
        before = now
        time.sleep(REFRESH_S)


def _say(report: StatusReport, moved: list[InstanceReport], *, first: bool) -> None:
    if first:
        print(summary_line(report).plain, flush=True)
    for item in moved if not first else [item for item in moved if item.status not in WELL]:
        why = f" ({item.detail})" if item.detail not in ("", "ok", item.status) else ""
        print(f"{time.strftime('%H:%M:%S')} {item.instance} on {item.host}: {item.status}{why}", flush=True)
