"""`outrider backup create|verify|restore|list|prune`: the backups of this host."""

from __future__ import annotations

import argparse
import difflib
import sys
import time

from msgspec import Struct

from outrider.cli.output import Progress, ago, console, count, print_json, table
from outrider.cli.parser import UsageError
from outrider.cli.where import config_of
from outrider.errors import EXIT_CONSUL_UNREACHABLE, EXIT_FAILED, BackupError
from outrider.migration.backup.desk import Desk, Outcome, Pruned
from outrider.migration.backup.model import Row
from outrider.migration.backup.record import Known, known_everywhere
from outrider.migration.backup.restoring import Restored
from outrider.migration.backup.retention import Keep

DID = {"new": "new, proved by a restore", "proved": "unchanged, proved again", "nothing": "unchanged"}
WOULD = {"new": "would be new", "proved": "unchanged, would be proved again", "nothing": "unchanged"}


class Listed(Struct, frozen=True):
    """`list --json`. `damaged`: what is wrong with those that cannot be read."""

    backups: tuple[Row, ...]
    damaged: tuple[str, ...] = ()


class ListedEverywhere(Struct, frozen=True):
    """`list --fleet --json`."""

    backups: tuple[Known, ...]


class Created(Struct, frozen=True):
    """`create --json` with --prune; without, it is the outcome alone."""

    outcome: Outcome
    pruned: Pruned | None


def create(args: argparse.Namespace) -> int:
    """Make them. Exit code 1 if one could not be made, 3 if Consul alone was in the way; the others are made."""
    desk, progress = _desk(args), Progress(quiet=args.json)
    outcome = desk.create(args.name, args.levels, check_mode=args.check, said=progress.show)
    progress.clear()
    keep = Keep(args.keep_daily, args.keep_weekly)
    pruned = desk.prune(keep, check_mode=args.check) if args.prune else None
    if args.json:
        print_json(Created(outcome, pruned))
        return _exit_code(outcome)
    words = WOULD if args.check else DID
    for done in outcome.done:
        size = f", {done.backup.size:,} bytes, {done.backup.id}" if done.backup else ""
        print(f"{done.name}: {done.level}: {words[done.did]}{size}")
    _say_failed(outcome)
    if pruned:
        print(f"{count(len(pruned.removed), 'outdated backup')} {'would be ' if args.check else ''}removed")
    if not outcome.done and not outcome.failed:
        print("nothing to back up: no instance is on this host, and it is no Consul server")
    return _exit_code(outcome)


def verify(args: argparse.Namespace) -> int:
    """Restore them into scratch. Exit code 1 if one is damaged."""
    progress = Progress(quiet=args.json)
    outcome = _desk(args).verify(args.name, progress.show)
    progress.clear()
    if args.json:
        print_json(outcome)
        return _exit_code(outcome)
    for done in outcome.done:
        if done.backup:
            print(f"{done.backup.id}: whole; {', '.join(done.backup.checks)}")
    _say_failed(outcome)
    if not outcome.done and not outcome.failed:
        print("there is no backup to verify: `outrider backup create` makes one")
    return _exit_code(outcome)


def restore(args: argparse.Namespace) -> int:
    """Show what would be put back, or with --apply or --to do it."""
    if args.to and args.apply:
        raise UsageError("--to says already what to do", hint="leave --apply out, or --to DIR")
    desk = _desk(args)
    backup = desk.choose(args.name, args.level)
    restored = desk.restore(backup, args.to, check_mode=not (args.apply or args.to))
    if args.json:
        print_json(restored)
    else:
        _say_restored(restored, done=bool(args.apply or args.to))
    return 0


def _say_restored(restored: Restored, *, done: bool) -> None:
    for shown in restored.diff:
        before, after = shown.before.splitlines(keepends=True), shown.after.splitlines(keepends=True)
        print("".join(difflib.unified_diff(before, after, shown.before_header, shown.after_header)), end="")
    if restored.left_alone:
        print(f"left alone, as what should be is not in them or not in the backup: {', '.join(restored.left_alone)}")
    if not restored.changed:
        print(f"{restored.id}: nothing differs")
    elif done:
        print(f"{restored.id}: restored into {restored.into}")
        if restored.kept:
            print(f"what was there is in {restored.kept}: remove it when all is well")
    else:
        first = f"; it runs: `{restored.first}` first" if restored.first else ""
        print(f"{restored.id}: would be restored into {restored.into}; nothing was written, --apply does it{first}")


def show(args: argparse.Namespace) -> int:
    """List them, those that do not count too. Exit code 1 if one is damaged."""
    desk = _desk(args)
    if args.fleet:
        _show_fleet(known_everywhere(desk.consul(), args.name), as_json=args.json)
        return 0
    rows, damaged = desk.rows(args.name)
    if args.json:
        print_json(Listed(rows, damaged))
    elif rows:
        console().print(table(["backup", "made", "proved", "files", "bytes"], map(_row, rows), wrap=("backup",)))
    elif not damaged:
        print(f"no backups in {desk.vault.root}: `outrider backup create` makes them")
    for problem in () if args.json else damaged:
        print(f"outrider: {problem}", file=sys.stderr)
    return EXIT_FAILED if damaged or any(not row.verified_at for row in rows) else 0


def _show_fleet(known: tuple[Known, ...], *, as_json: bool) -> None:
    if as_json:
        print_json(ListedEverywhere(known))
        return
    rows = [[k.agent or "fleet", k.level, k.host, ago(k.verified_at), f"{k.bytes:,}", k.id] for k in known]
    console().print(table(["agent", "level", "host", "proved", "bytes", "backup"], rows, wrap=("backup",)))


def _row(row: Row) -> list[str]:
    made = time.strftime("%m-%d %H:%M", time.localtime(row.created))
    return [
        row.id,
        made,
        ago(row.verified_at) if row.verified_at else "does not count",
        str(row.count),
        f"{row.size:,}",
    ]


def prune(args: argparse.Namespace) -> int:
    """Remove what is outdated."""
    pruned = _desk(args).prune(Keep(args.keep_daily, args.keep_weekly), check_mode=args.check)
    if args.json:
        print_json(pruned)
        return 0
    for name in pruned.removed:
        print(name)
    print(f"{count(len(pruned.removed), 'backup')} {'would be ' if args.check else ''}removed")
    return 0


def _desk(args: argparse.Namespace) -> Desk:
    config = config_of(args.runtime)
    if config is None:
        raise BackupError(
            f"the configuration of the shim that serves {args.runtime} cannot be read",
            hint="run it as root on a host of the fleet, or name the shim's folder: outrider --runtime DIR backup ...",
        )
    return Desk(config, folder=args.folder, token_file=args.token_file, program=args.consul_program)


def _say_failed(outcome: Outcome) -> None:
    for failed in outcome.failed:
        hint = f"\n  {failed.hint}" if failed.hint else ""
        what = f"{failed.subject}: {failed.level}: " if failed.level and failed.subject not in failed.error else ""
        print(f"outrider: {what}{failed.error}{hint}", file=sys.stderr)
    for warning in outcome.warnings:
        print(f"outrider: {warning}", file=sys.stderr)


def _exit_code(outcome: Outcome) -> int:
    codes = {failed.exit_code for failed in outcome.failed}
    if not codes:
        return 0
    return EXIT_CONSUL_UNREACHABLE if codes == {EXIT_CONSUL_UNREACHABLE} else EXIT_FAILED
