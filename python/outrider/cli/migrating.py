"""`outrider migrate ...`: planned, asked for, watched and steered through the shim of this host."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from outrider.cli.migration_plan_view import plans_lines
from outrider.cli.migration_view import News, lines_of, list_table, screen
from outrider.cli.output import console, count, print_json
from outrider.cli.parser import UsageError
from outrider.errors import EXIT_FAILED, ConsulDenied, ConsulUnreachable, OutriderError
from outrider.host.shim_client import ShimClient
from outrider.migration.staged.preview import PlansReport
from outrider.migration.staged.records import OUTCOMES, Given
from outrider.migration.staged.report import MigrationReport, MigrationsReport

T = TypeVar("T")
POLL_S = 0.1
REFRESH_S = 0.25
PATIENCE_S = 60.0  # a shim that is restarted, or Consul's election, ends no watching
FLAGS = ("rehearse", "readable")
POLICY = ("canary", "canary_s", "verify_s", "undecided", "approvals")


def plan(args: argparse.Namespace) -> int:
    """Show what would be done. Writes nothing."""
    report = _post_plan(args, dry=True)
    if args.json:
        print_json(report)
        return 0
    print("\n".join(plans_lines(report)))
    print(f"nothing was written; `outrider migrate run{_words(args)}` does it")
    return 0


def run(args: argparse.Namespace) -> int:
    """Show it, ask for it, and follow it."""
    if not args.json:
        print("\n".join(plans_lines(_post_plan(args, dry=True))), flush=True)
    report = _post_plan(args, dry=False)
    ids = [found.id for found in report.plans]
    if not args.detach:
        return _follow(args, ids)
    if args.json:
        print_json(report)
    else:
        print(f"asked for: {', '.join(ids)}\n  `outrider migrate watch {' '.join(ids)}` follows it")
    return 0


def watch(args: argparse.Namespace) -> int:
    """Follow migrations that are there."""
    ids = args.ids or [found.id for found in _all(args).migrations if found.state not in OUTCOMES]
    if not ids:
        print_json(MigrationsReport(())) if args.json else print("no migration is under way")
        return 0
    return _follow(args, ids)


def show_all(args: argparse.Namespace) -> int:
    """One line a migration."""
    report = _all(args)
    if args.active:
        active = tuple(found for found in report.migrations if found.state not in OUTCOMES)
        report = MigrationsReport(active, report.problems)
    if args.json:
        print_json(report)
    elif report.migrations:
        console().print(list_table(report.migrations))
    else:
        print("no migration is under way" if args.active else "nothing was migrated yet")
    for problem in report.problems:
        print(f"outrider: {problem}\n  look at it in the Consul UI, Key/Value", file=sys.stderr)
    return EXIT_FAILED if report.problems else 0


def show(args: argparse.Namespace) -> int:
    """One with its whole journal."""
    report = _one(ShimClient(args.runtime), args.id)
    print_json(report) if args.json else print("\n".join(lines_of(report, evidence=True)))
    return exit_code(report)


def steer(args: argparse.Namespace) -> int:
    """Say something to one that is under way."""
    query = {"by": who(), "said": getattr(args, "said", "")}
    if args.verb == "approve":
        query["approves"] = args.approves
    if args.verb == "resolve":
        query["resolution"] = _resolution(args)
    path = f"/v1/migrations/{quote(args.id, safe='')}/{args.verb}?{urlencode(query)}"
    report = _post(args, path, MigrationReport)
    if args.json:
        print_json(report)
    else:
        print(f"{report.id}: {args.verb} is noted, by {query['by']}\n  `outrider migrate watch {report.id}` follows it")
    return 0


def _resolution(args: argparse.Namespace) -> str:
    if not args.accept_loss:
        return str(args.resolution)
    if args.resolution != "back" or not args.said:
        hint = f"outrider migrate resolve {args.id} --back --accept-loss --said TEXT"
        raise UsageError("--accept-loss wants --back, and --said for others to read why", hint=hint)
    return "accept_loss"


def who() -> str:
    """Who says it, for the journal."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def exit_code(report: MigrationReport) -> int:
    """1 for what did not go well, or waits for somebody to decide about it."""
    return EXIT_FAILED if report.state in ("rolled_back", "cancelled", "held", "broken") else 0


def _post_plan(args: argparse.Namespace, *, dry: bool) -> PlansReport:
    if bool(args.leave) and not args.to:
        raise UsageError("--from wants --to", hint=f"outrider migrate {args.verb} --from {args.leave} --to HOST")
    if not args.agents and not args.leave:
        raise UsageError("name agents, or a host to leave", hint=f"outrider migrate {args.verb} AGENT --to HOST")
    query = {"agents": ",".join(args.agents), "leave": args.leave, "to": args.to, "source": args.instance,
             "override": args.override, "why": args.why, "by": who()}  # fmt: skip
    given = {name: value for name in POLICY if (value := getattr(args, name)) is not None}
    if given:
        query["policy"] = msgspec.json.encode(msgspec.convert(given, Given)).decode()
    path = "/v1/migration-plans?" + urlencode({key: value for key, value in query.items() if value})
    path += "".join(f"&{name}=" for name in FLAGS if getattr(args, name))
    return _post(args, path + ("&dry=" if dry else ""), PlansReport)


def _post(args: argparse.Namespace, path: str, kind: type[T]) -> T:
    try:
        return ShimClient(args.runtime).post(path, kind)
    except ConsulDenied as error:
        hint = "only shims of Consul's servers may write what migrations take: do it on one of those hosts"
        raise ConsulDenied(error.message, hint=hint) from error


def _words(args: argparse.Namespace) -> str:
    """The same question again, on the command line."""
    said = [*args.agents]
    for option, value in (("--from", args.leave), ("--to", args.to), ("--instance", args.instance)):
        said += [option, value] if value else []
    said += [f"--{name}" for name in FLAGS if getattr(args, name)]
    for name in POLICY:
        if (given := getattr(args, name)) is not None:
            said += [f"--{name.replace('_', '-')}", f"{given:g}" if isinstance(given, float) else str(given)]
    return "".join(f" {word}" for word in said)


def _all(args: argparse.Namespace) -> MigrationsReport:
    return ShimClient(args.runtime).get("/v1/migrations", MigrationsReport)


def _one(client: ShimClient, migration: str) -> MigrationReport:
    return client.get(f"/v1/migrations/{quote(migration, safe='')}", MigrationReport)


def _follow(args: argparse.Namespace, ids: Sequence[str]) -> int:
    """Until all have ended, or are held. Interrupted, they go on."""
    try:
        reports = (_follow_screen if sys.stdout.isatty() and not args.json else _follow_lines)(args, ids)
    except KeyboardInterrupt:
        said = "it goes on" if len(ids) == 1 else "they go on"
        print(f"\noutrider: {said}; `outrider migrate watch {' '.join(ids)}` shows it again", file=sys.stderr)
        raise
    if not args.json and len(ids) > 1:
        well = sum(exit_code(report) == 0 for report in reports)
        print(f"{well} of {count(len(ids), 'migration')} {'rehearsed' if reports[0].rehearse else 'finalised'}")
    return max(exit_code(report) for report in reports)


def _follow_screen(args: argparse.Namespace, ids: Sequence[str]) -> list[MigrationReport]:
    from rich.live import Live
    from rich.text import Text

    out = console()
    with Live(console=out, auto_refresh=False, transient=True) as live:

        def draw(reports: list[MigrationReport], trouble: str) -> None:
            live.update(Text("\n".join(screen(reports, out.height - 1, trouble))), refresh=True)

        reports = _poll(args, ids, draw, REFRESH_S)
    for report in reports:
        print("\n".join(lines_of(report)))
    return reports


def _follow_lines(args: argparse.Namespace, ids: Sequence[str]) -> list[MigrationReport]:
    """For programs and pipes: what is new, a line each."""
    news = {migration: News() for migration in ids}

    def tell(reports: list[MigrationReport], trouble: str) -> None:
        if trouble and not args.json:
            print(f"outrider: {trouble}", file=sys.stderr, flush=True)
        for report in reports:
            told = news[report.id].lines(report)
            if args.json and told:
                print_json(report, lines=True)
            elif told:
                print("\n".join(told), flush=True)

    return _poll(args, ids, tell, POLL_S)


def _poll(
    args: argparse.Namespace,
    ids: Sequence[str],
    tell: Callable[[list[MigrationReport], str], None],
    every_s: float,
) -> list[MigrationReport]:
    """Look until nothing moves by itself any more. Raises what the shim says if it has not answered for a minute."""
    client, reports = ShimClient(args.runtime), []
    answered = time.monotonic()
    while True:
        trouble = ""
        try:
            reports = [_one(client, migration) for migration in ids]
            answered = time.monotonic()
        except OutriderError as error:
            known = reports or isinstance(error, ConsulUnreachable)
            if not known or time.monotonic() - answered > PATIENCE_S:
                raise
            trouble = f"{error.message}; the migration goes on, and what follows is as it was before"
        tell(reports, trouble)
        if reports and not trouble and all(report.state in (*OUTCOMES, "held", "broken") for report in reports):
            return reports
        time.sleep(every_s)
