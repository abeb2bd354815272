"""`outrider place [AGENT] [--explain]`, `outrider drain HOST`, `outrider undrain HOST`."""

from __future__ import annotations

import argparse
import sys
import time
from urllib.parse import quote, urlencode

from msgspec import Struct

from outrider.cli.output import Progress, ago, console, count, print_json, table
from outrider.cli.parser import UsageError
from outrider.errors import EXIT_FAILED, UnknownAgent
from outrider.failover.explain import Explanation, HostReport, HostRow, IfLost, PlacedRow, Placements
from outrider.host.shim_client import ShimClient

POLL_S = 0.1
SETTLED_S = 3.0  # what has not begun to move by then, though nothing else moves, stays


class Drained(Struct, frozen=True):
    """`drain --json`. `moved`: instances that left; `stayed`: instance to why it is still there."""

    host: str
    moved: tuple[str, ...]
    stayed: dict[str, str]
    took_s: float


def place(args: argparse.Namespace) -> int:
    """All instances with host and reason, or all about the place of one agent."""
    client = ShimClient(args.runtime)
    if args.name is None:
        if args.explain:
            raise UsageError("--explain takes the name of an agent", hint="outrider place MemoryClient --explain")
        _show_all(client.get("/v1/placement", Placements), as_json=args.json)
        return 0
    if args.explain:
        found = client.get(f"/v1/placement/{quote(args.name)}", Explanation)
        print_json(found) if args.json else _show_one(found)
        return 0
    report = client.get("/v1/placement", Placements)
    rows = tuple(row for row in report.instances if args.name in (row.agent, row.instance))
    if not rows:
        raise UnknownAgent(f"no agent or instance {args.name} is placed", hint="`outrider place` lists those that are")
    _show_all(Placements(report.placer, rows), as_json=args.json)
    return 0


def _show_all(report: Placements, *, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    rows = [_row(row) for row in report.instances]
    console().print(table(["instance", "host", "home", "since", "reason"], rows, wrap=("reason",)))
    print(f"\nthe shim of {report.placer} decides" if report.placer else "\nno shim is known to decide")


def _row(row: PlacedRow) -> list[str]:
    stopped = "" if row.state == "run" else "stopped; "
    return [row.instance, row.host, row.home or "-", ago(row.since), stopped + (row.reason or "-")]


def _show_one(found: Explanation) -> None:
    out = console()
    rows = [_row(row) for row in found.instances]
    out.print(table(["instance", "host", "home", "since", "reason"], rows, wrap=("reason",)))
    out.print()
    rows = [_host(row) for row in found.hosts]
    out.print(table(["host", "instances", "cores", "memory", "gpus", "for one more"], rows, wrap=("for one more",)))
    out.print()
    for fate in found.if_lost:
        print(sentence(fate))
    if found.failback_s is None:
        print("once moved, it stays where it is: the fleet file gives it no failback_s")
    else:
        when = f", at {found.failback_window} UTC" if found.failback_window else ""
        print(f"once moved, it goes home when its host has been well for {found.failback_s:g} s{when}")


def sentence(fate: IfLost) -> str:
    """What would become of an instance."""
    if fate.target is None:
        return f"{fate.instance} may not move: if {fate.host} were lost: {fate.reason}"
    return f"{fate.instance} may move: if {fate.host} were lost, {fate.target} would get it"


def _host(row: HostRow) -> list[str]:
    cpu = "any" if row.cpu is None else f"{row.cpu:g}"
    memory = "any" if row.memory_mib is None else f"{row.memory_mib} MiB"
    gpus = ", ".join(f"{size} MiB" for size in row.gpus_mib) or "-"
    return [row.host, str(row.instances), cpu, memory, gpus, row.lacks or "has room"]


def drain(args: argparse.Namespace) -> int:
    """Say that the host is to be empty, and wait until it is. Exit code 1 if something stayed."""
    client = ShimClient(args.runtime)
    before = client.get(_path(args.host), HostReport)
    began = time.monotonic()
    client.post(f"{_path(args.host)}/drain?{urlencode({'reason': args.reason})}", HostReport)
    report = _wait(client, args, before)
    stayed = {item.instance: _why(report, item.target, item.stuck) for item in report.left}
    stayed |= dict.fromkeys(report.leaving, "is ending")
    moved = tuple(sorted({item.instance for item in before.left} - stayed.keys()))
    took_s = round(time.monotonic() - began, 3)
    if args.json:
        print_json(Drained(args.host, moved, stayed, took_s))
    else:
        print(f"{args.host} is drained: {count(len(moved), 'instance')} left it in {took_s:.1f} s")
        for name, why in sorted(stayed.items()):
            print(f"outrider: {name} stays on {args.host}: {why}", file=sys.stderr)
    return EXIT_FAILED if stayed else 0


def undrain(args: argparse.Namespace) -> int:
    """Instances may be placed on the host again. What was moved stays where it is, unless it has a failback_s."""
    report = ShimClient(args.runtime).post(f"{_path(args.host)}/undrain", HostReport)
    print_json({"host": report.host}) if args.json else print(f"instances may be placed on {args.host} again")
    return 0


def _path(host: str) -> str:
    return f"/v1/hosts/{quote(host, safe='')}"


def _why(report: HostReport, target: str, stuck: str) -> str:
    if target:
        return f"does not pass on {target} yet"
    decides = f"the shim of {report.placer} decides" if report.placer else "no shim is known to decide"
    return stuck or f"not moved yet; {decides}"


def _wait(client: ShimClient, args: argparse.Namespace, before: HostReport) -> HostReport:
    """Until nothing is left, or only what cannot leave, or the time is over. Interrupted, the host stays drained."""
    progress = Progress(quiet=args.json)
    began = moved_at = time.monotonic()
    last: HostReport | None = None
    while True:
        report = client.get(_path(args.host), HostReport)
        now = time.monotonic()
        if last is None or (report.left, report.leaving) != (last.left, last.leaving):
            moved_at, last = now, report
        there = report.state == "drained"
        only_stuck = all(item.stuck for item in report.left) and not report.leaving
        if (there and not report.left and not report.leaving) or now - began >= args.wait:
            break
        if there and only_stuck and now - moved_at > SETTLED_S:
            break
        left = ", ".join(f"{item.instance} to {item.target}" if item.target else item.instance for item in report.left)
        progress.show(
            f"{now - began:4.1f} s  {len(before.left) - len(report.left)} of {len(before.left)} left; {left}"[:78]
        )
        time.sleep(POLL_S)
    progress.clear()
    return report
