"""`outrider calls` and `outrider breakers`: who calls whom on this host, and which circuits are open."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from outrider.cli.output import console, count, print_json, table
from outrider.errors import EXIT_FAILED
from outrider.host.reports import BreakersReport, CallRow, CallsReport, CircuitRow, SampleRow
from outrider.host.shim_client import ShimClient

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

REFRESH_S = 1.0


def calls(args: argparse.Namespace) -> int:
    """Show the calls once, or until Ctrl-C."""
    client = ShimClient(args.runtime)

    def report() -> CallsReport:
        return _of(client.get("/v1/calls", CallsReport), args.name)

    if args.watch and not args.json and sys.stdout.isatty():
        from rich.live import Live

        with Live(console=console(), screen=True, auto_refresh=False) as live:
            while True:
                live.update(calls_view(report(), args.samples), refresh=True)
                time.sleep(REFRESH_S)
    while True:
        if args.json:
            print_json(report(), lines=args.watch)
        else:
            console().print(calls_view(report(), args.samples))
        if not args.watch:
            return 0
        time.sleep(REFRESH_S)


def breakers(args: argparse.Namespace) -> int:
    """Show the circuits; exit code 1 if one is not closed."""
    report = ShimClient(args.runtime).get("/v1/breakers", BreakersReport)
    rows = tuple(row for row in report.circuits if args.name in (None, row.agent, row.instance, row.caller))
    if args.json:
        print_json(BreakersReport(rows))
    else:
        console().print(breakers_view(rows))
    return EXIT_FAILED if any(row.state != "closed" for row in rows) else 0


def calls_view(report: CallsReport, samples: bool) -> Group:
    """The calls, busiest first, and if asked for those that failed or were slow, last first."""
    from rich.console import Group
    from rich.text import Text

    lively = sum(row.per_s for row in report.calls)
    failed = sum(row.failed for row in report.calls)
    total = sum(row.calls for row in report.calls)
    parts: list[Text | Table] = [Text(f"{lively:.1f} calls/s; {count(total, 'call')} so far, {failed} failed")]
    if report.calls:
        parts += [Text(""), calls_table(sorted(report.calls, key=lambda row: (-row.per_s, -row.calls)))]
    if samples and report.samples:
        parts += [Text(""), samples_table(report.samples)]
    return Group(*parts)


def calls_table(rows: list[CallRow]) -> Table:
    """One line for each pair."""
    headings = ["caller", "calls", "per s", "p50", "p99", "in flight", "total", "failed", "retries"]
    return table(
        headings,
        [
            [
                row.caller,
                row.agent,
                f"{row.per_s:.1f}",
                _ms(row.p50_s),
                _ms(row.p99_s),
                str(row.in_flight),
                str(row.calls),
                _failures(row),
                str(row.retries),
            ]
            for row in rows
        ],
    )


def samples_table(rows: tuple[SampleRow, ...]) -> Table:
    """One line for each call that failed or was slow."""
    return table(
        ["at", "caller", "call", "outcome", "took", "trace"],
        [
            [
                time.strftime("%H:%M:%S", time.localtime(row.at)),
                row.caller,
                f"{row.agent} {row.method}",
                row.outcome,
                f"{row.seconds * 1000:.0f} ms",
                row.trace[3:35],
            ]
            for row in reversed(rows)
        ],
    )


def breakers_view(rows: tuple[CircuitRow, ...]) -> Group:
    """The circuits that are not closed, and how many are."""
    from rich.console import Group
    from rich.text import Text

    shut = [row for row in rows if row.state != "closed"]
    style = "bold red" if shut else "green"
    parts: list[Text | Table] = [Text(f"{len(rows) - len(shut)} of {count(len(rows), 'circuit')} closed", style=style)]
    if shut:
        headings = ["instance", "caller", "circuit", "openings", "for the host", "detail"]
        lines = [
            [row.instance, row.caller, row.state, str(row.openings), "ill" if row.ill else "", row.reason]
            for row in shut
        ]
        parts += [Text(""), table(headings, lines)]
    return Group(*parts)


def _of(report: CallsReport, name: str | None) -> CallsReport:
    """What concerns one agent or instance, as caller or called."""
    if name is None:
        return report

    def concerns(row: CallRow | SampleRow) -> bool:
        return name in (row.agent, row.caller) or row.caller.rpartition("-")[0] == name

    return CallsReport(tuple(filter(concerns, report.calls)), tuple(filter(concerns, report.samples)))


def _failures(row: CallRow) -> str:
    reasons = ", ".join(f"{n} {kind}" for kind, n in sorted(row.outcomes.items()) if kind != "ok")
    return reasons or "0"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"<{seconds * 1000:g} ms"
