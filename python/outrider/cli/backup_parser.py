"""`outrider backup ...` with its options. What a verb does is imported only when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from outrider.cli.parser import lazily

LEVELS = ("configuration", "kv", "state", "snapshot")
WHERE = "Backups are this host's own; as root on systemd hosts."


def add_backup_commands(commands: Any) -> None:
    """Add `backup` and its verbs to the subparsers of the command line."""
    backup = commands.add_parser("backup", help="make, check, restore and list backups of this host")
    verbs = backup.add_subparsers(dest="verb", metavar="VERB", required=True)
    made = _add(verbs, "create", "back up an agent or an instance, or all that this host has",
                "Each is restored into scratch and checked before it counts; an unchanged source makes no new one.",
                "create\nbackup create MemoryClient --level state")  # fmt: skip
    made.add_argument("name", nargs="?", default="", metavar="NAME", help="an agent or an instance")
    made.add_argument("--level", action="append", choices=LEVELS, default=[], dest="levels",
                      help="only this; may be given again")  # fmt: skip
    made.add_argument("--prune", action="store_true", help="afterwards remove outdated ones")
    made.add_argument("--check", action="store_true", help="say what would be done, and write nothing")
    _keep(made)
    made = _add(verbs, "verify", "restore backups into scratch once more",
                "One that is damaged does not count from then on; exit code 1.",
                "verify\nbackup verify MemoryClient")  # fmt: skip
    made.add_argument("name", nargs="?", default="", metavar="NAME", help="a backup's id, an agent or an instance")
    made = _add(verbs, "restore", "put a backup back: state of a stopped instance, or documents in Consul",
                "Shows what would change; --apply does it.",
                "restore MemoryClient-1 --level state --apply\nbackup restore MemoryClient --level kv\n"
                "backup restore MemoryClient-1 --level state --to /tmp/look")  # fmt: skip
    made.add_argument("name", metavar="NAME", help="a backup's id, or an agent or instance whose last one is meant")
    made.add_argument("--level", choices=LEVELS, help="of an agent that has several")
    made.add_argument("--to", type=Path, metavar="DIR", help="into this new folder instead")
    made.add_argument("--apply", action="store_true", help="do it; without, it is only shown (not with --to)")
    made = _add(verbs, "list", "the backups of this host, or what the cluster knows of all hosts'", "",
                "list\nbackup list MemoryClient --json\nbackup list --fleet")  # fmt: skip
    made.add_argument("name", nargs="?", default="", metavar="NAME", help="an agent or an instance")
    made.add_argument("--fleet", action="store_true", help="of all hosts, as Consul knows them")
    made = _add(verbs, "prune", "remove outdated backups, and content that none needs",
                "The last one that was proved always stays.", "prune --keep-daily 7 --keep-weekly 4")  # fmt: skip
    made.add_argument("--check", action="store_true", help="say what would go, and remove nothing")
    _keep(made)


def _add(verbs: Any, name: str, text: str, more: str, example: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=text,
        description="\n".join(filter(None, (f"{text[0].upper()}{text[1:]}.", more, WHERE))),
        epilog="example: outrider backup " + example.replace("\n", "\n         outrider "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--json", action="store_true", help="JSON for programs")
    made.add_argument("--runtime", type=Path, metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    made.add_argument("--folder", type=Path, metavar="DIR", help="the backups' folder, instead of the configured one")
    made.add_argument("--token-file", default="", metavar="FILE", help="token for Consul, instead of the host's own")
    made.add_argument("--consul-program", type=Path, metavar="FILE", help="Consul's program, where it is not found")
    made.set_defaults(handler=lazily(f"backups:{'show' if name == 'list' else name}"))
    return made


def _keep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep-daily", type=_count, default=7, metavar="N", help="days that keep their last one (7)")
    parser.add_argument("--keep-weekly", type=_count, default=4, metavar="N", help="weeks that keep their last one (4)")


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("0 or more")
    return number
