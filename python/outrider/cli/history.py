"""`outrider events` and `outrider uptime`: what happened in the fleet, and how much of the time agents were there."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from outrider.cli.output import console, count, print_json, status_text, table
from outrider.cli.suggest import unknown
from outrider.host.reports import EventRow, EventsReport, StatusReport, UptimeReport
from outrider.host.shim_client import ShimClient

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

POLL_S = 0.5
STATUSES = ("starting", "passing", "warning", "critical", "stopped", "parked", "missing")


def events(args: argparse.Namespace) -> int:
    """Show the last events, and with --follow those to come, until Ctrl-C."""
    client = ShimClient(args.runtime)

    def ask(since: float, limit: int) -> EventsReport:
        query = {"name": args.name or "", "what": ",".join(args.what), "since": since, "limit": limit}
        return client.get(f"/v1/events?{urlencode(query)}", EventsReport)

    report = ask(time.time() - args.since if args.since else 0.0, args.limit)
    if args.name and not report.events:
        _require(client, args.name)
    if args.json:
        print_json(report, lines=args.follow)
    elif report.events:
        console().print(events_table(report.events))
    else:
        print("nothing happened that this shim remembers")
    last = max((event.at for event in report.events), default=time.time())
    while args.follow:
        time.sleep(POLL_S)
        news = [event for event in ask(last, 1000).events if event.at > last]
        for event in news:
            print_json(EventsReport((event,)), lines=True) if args.json else print(line_of(event), flush=True)
            last = max(last, event.at)
    return 0


def uptime(args: argparse.Namespace) -> int:
    """Show the shares of the observed time, the worst agent first."""
    query = urlencode({"agent": args.name or ""})
    client = ShimClient(args.runtime)
    report = client.get(f"/v1/uptime?{query}", UptimeReport)
    if args.name and not report.agents:
        _require(client, args.name)
    if args.json:
        print_json(report)
        return 0
    shares = ", ".join(f"{window} {share_text(value)}" for window, value in report.fleet.items())
    print(f"fleet: {shares}; {count(len(report.agents), 'agent')} observed")
    if report.agents:
        print()
        console().print(uptime_table(report))
    return 0


def _require(client: ShimClient, name: str) -> None:
    """Nothing was found of it: is there such a thing at all? Raises UnknownAgent."""
    fleet = client.get("/v1/status", StatusReport)
    if not any(name in (item.agent, item.instance, item.host) for item in fleet.instances):
        raise unknown(name, fleet)


def events_table(rows: tuple[EventRow, ...]) -> Table:
    """One line an event, oldest first."""
    cells: list[list[str | Text]] = [
        [
            time.strftime("%m-%d %H:%M:%S", time.localtime(row.at)) + f"{row.at % 1:.3f}"[1:],
            row.instance or "-",
            row.host,
            status_text(row.what) if row.what in STATUSES else row.what,
            duration(row.lasted_s),
            str(row.epoch) if row.epoch else "-",
            row.why or "-",
        ]
        for row in rows
    ]
    return table(["when", "instance", "host", "what", "after", "epoch", "detail"], cells)


def uptime_table(report: UptimeReport) -> Table:
    """One line an agent, the one that was away the longest first."""
    windows = list(report.fleet)
    rows = sorted(report.agents, key=lambda row: (-row.down_s, row.agent))
    cells: list[list[str | Text]] = [
        [row.agent, *(share_text(row.shares.get(window)) for window in windows), duration(row.down_s)] for row in rows
    ]
    return table(["agent", *windows, "away"], cells)


def line_of(event: EventRow) -> str:
    """For pipes and logs."""
    when = time.strftime("%H:%M:%S", time.localtime(event.at))
    why = f" ({event.why})" if event.why else ""
    return f"{when} {event.instance or event.host}: {event.what}{why}"


def share_text(share: float | None) -> str:
    """In percent; never rounded up to 100."""
    if share is None:
        return "-"
    return "100 %" if share == 1.0 else f"{min(share * 100, 99.999):.3f} %"


def duration(seconds: float) -> str:
    """For people."""
    if seconds <= 0:
        return "-"
    if seconds < 60:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
