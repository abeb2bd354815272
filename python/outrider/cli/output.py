"""How answers look: tables for people, JSON for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outrider.host.reports import InstanceReport, StatusReport

COLOURS = {"passing": "green", "warning": "yellow", "starting": "yellow", "critical": "red", "parked": "red"}


def console() -> Console:
    """Standard output; 120 columns when it is no terminal, so that a pipe gets whole lines."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def print_json(value: Any) -> None:
    """`value` on standard output, indented."""
    print(msgspec.json.format(msgspec.json.encode(value)).decode())


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A plain table: no frame, headings in capitals."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column.upper(), no_wrap=column != "detail", overflow="ellipsis")
    for row in rows:
        made.add_row(*row)
    return made


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=COLOURS.get(status, "dim"))


def ago(since: float) -> str:
    """Time since `since`, Unix seconds: 12s, 5m, 3h, 2d."""
    if not since:
        return "-"
    seconds = max(0.0, time.time() - since)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def summary_line(report: StatusReport) -> Text:
    """The fleet in one line."""
    summary = report.summary
    well = summary.passing == summary.instances
    line = Text(f"fleet {report.fleet}: ")
    line.append(f"{summary.passing}/{summary.instances} instances pass", style="green" if well else "bold red")
    line.append(f", {summary.agents} agents on {summary.hosts} host{'s' if summary.hosts != 1 else ''}")
    if summary.consul != "reachable":
        line.append(", Consul does not answer", style="bold red")
    return line


def instances_table(reports: Iterable[InstanceReport]) -> Table:
    """One line an instance, those with a problem first."""
    ordered = sorted(reports, key=lambda report: (report.status == "passing", report.instance))
    detail = any(report.status != "passing" for report in ordered)
    columns = ["instance", "host", "address", "status", "role", "version", "since"] + (["detail"] if detail else [])
    rows = []
    for report in ordered:
        row: list[str | Text] = [
            report.instance,
            report.host,
            f"{report.address}:{report.port}" if report.port else "-",
            status_text(report.status),
            report.role,
            report.version,
            ago(report.since),
        ]
        rows.append([*row, report.detail if report.status != "passing" else ""] if detail else row)
    return table(columns, rows)
