"""Every command with its options, its help and an example. What a command does is imported only when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from outrider.cli.where import default_runtime
from outrider.errors import EXIT_USAGE, OutriderError

Handler = Callable[[argparse.Namespace], int]

EPILOG = """\
exit codes: 0 ok, 1 failed or no-go, 2 usage, 3 Consul not reachable
`outrider COMMAND --help` explains each, with an example. NO_COLOR=1 turns colours off."""


class UsageError(OutriderError):
    """The command line cannot be understood."""

    exit_code = EXIT_USAGE


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would print and exit, so that there is one way to report an error.

    An option is written whole: a shortened one would change its meaning with the next option that is added.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """What argparse found wrong."""
        raise UsageError(message, hint=f"`{self.prog} --help` shows what is allowed")


class _Version(argparse.Action):
    """Reads the version only when it is asked for: that costs 30 ms."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"outrider {version('outrider')}")
        parser.exit()


def lazily(target: str) -> Handler:
    """The function "module:name" of this package, imported when it is called."""
    module, name = target.split(":")

    def call(args: argparse.Namespace) -> int:
        return int(getattr(import_module(f"outrider.cli.{module}"), name)(args))

    return call


def build_parser(words: Iterable[str] = ("fleet",)) -> Parser:
    """All commands. What `fleet` and `migrate` take is added only if the `words` of the command line name them."""
    parser = Parser(
        prog="outrider",
        description="One self-healing fleet of agents on a few hosts: see it, ask it, mend it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    folder = "the shim's runtime folder; by default $OUTRIDER_RUNTIME, this checkout's demo, or /run/outrider"
    parser.add_argument("--runtime", type=Path, metavar="DIR", default=default_runtime(), help=folder)
    # The commands have a --json of their own, whose default would win over one given before the command.
    parser.add_argument("--json", action="store_true", dest="json_first", help="JSON for programs, errors too")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_looking(commands)
    _add_acting(commands)
    from outrider.cli.backup_parser import add_backup_commands

    add_backup_commands(commands)
    if "fleet" in words:
        from outrider.cli.fleet_commands import add_fleet_commands

        add_fleet_commands(commands)
    else:
        commands.add_parser("fleet", help="validate, show, draw, import a fleet file")
    if "migrate" in words:
        from outrider.cli.migrate_commands import add_migrate_commands

        add_migrate_commands(commands)
    else:
        commands.add_parser("migrate", help="move agents to another host or version, judged")
    return parser


def _add(commands: Any, name: str, target: str, text: str, *, more: str = "", example: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. {more}".strip(),
        epilog="example: " + "\n         ".join(f"outrider {line}" for line in example.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--json", action="store_true", help="JSON for programs")
    made.add_argument("--runtime", type=Path, metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    made.set_defaults(handler=lazily(target))
    return made


def _add_looking(commands: Any) -> None:
    made = _add(commands, "status", "status:status", "every instance of the fleet, problems first",
                more="Exit code 1 if one that should run does not pass.\n"
                "Without a shim on this host it asks Consul, and says so.",
                example="status --watch\nstatus --json | jq .summary")  # fmt: skip
    made.add_argument("-w", "--watch", action="store_true", help="go on showing it, until Ctrl-C")
    made = _add(commands, "agents", "agents:agents", "the agents of the fleet, or all about one",
                more="With NAME: where it runs,\nwhat it needs, who needs it, and how those are.",
                example="agents MemoryClient")  # fmt: skip
    made.add_argument("name", nargs="?", metavar="NAME", help="an agent")
    made = _add(commands, "place", "placing:place", "where instances are placed and why, and where they could go",
                more="With --explain:\nwhat every host lacks, and who would get it if its host were lost.",
                example="place\nplace MemoryClient --explain")  # fmt: skip
    made.add_argument("name", nargs="?", metavar="AGENT", help="an agent, or without --explain an instance")
    made.add_argument("--explain", action="store_true", help="every host, and what it offers or lacks")
    made = _add(commands, "lookup", "lookup:look_up", "who serves an agent now, as an agent on this host is told",
                more="From the\ncatalogue, with the age of that knowledge. Exit code 1 if nobody does.",
                example="lookup MemoryClient --json\nlookup MemoryClient --watch")  # fmt: skip
    made.add_argument("name", metavar="NAME", help="an agent")
    made.add_argument("-w", "--watch", action="store_true", help="show every change, until Ctrl-C")
    made = _add(commands, "calls", "calls:calls", "who calls whom on this host, how often and how well",
                more="With NAME: of one agent\nor instance.",
                example="calls --watch\ncalls MemoryClient --samples")  # fmt: skip
    made.add_argument("name", nargs="?", metavar="NAME", help="an agent or an instance")
    made.add_argument("-w", "--watch", action="store_true", help="go on showing it, until Ctrl-C")
    made.add_argument("--samples", action="store_true", help="also calls that failed or were slow, with traces")
    made = _add(commands, "breakers", "calls:breakers", "the circuits of this host's callers, open ones first",
                more="Exit code 1 if one is not closed.",
                example="breakers\nbreakers MemoryClient --json")  # fmt: skip
    made.add_argument("name", nargs="?", metavar="NAME", help="an agent or an instance")
    made = _add(commands, "events", "history:events", "what happened to instances, and why, as this host saw it",
                more="With NAME: to one\nagent, instance or host.",
                example="events --since 1h\nevents Memory --what critical,holder\nevents --follow")  # fmt: skip
    made.add_argument("name", nargs="?", metavar="NAME", help="an agent, an instance or a host")
    made.add_argument("--since", type=_span, default=0.0, metavar="SPAN", help="not older than: 30s, 5m, 1h, 7d")
    made.add_argument("--what", type=_words, default=(), metavar="KINDS", help="only these, as critical,holder")
    made.add_argument("--limit", type=_count, default=100, metavar="N", help="at most so many, the last ones (100)")
    made.add_argument("-f", "--follow", action="store_true", help="go on as they happen, until Ctrl-C")
    made = _add(commands, "uptime", "history:uptime", "the share of time in which agents could be called",
                more="Time that no shim here\nobserved, or without Consul, is left out.",
                example="uptime\nuptime Memory --json")  # fmt: skip
    made.add_argument("name", nargs="?", metavar="AGENT", help="an agent")
    made = _add(commands, "risk", "risk:risk", "how risky it is to move an agent, or each, from measured facts",
                more="With AGENT:\nevery point with its evidence, and the gates. Exit code 1 then if it is a no-go.\n"
                "What is not known counts as the worst.",
                example="risk\nrisk MemoryClient --to gpu2\nrisk MemoryClient --new ./next --readable\n"
                "risk --fleet inventories/reference")  # fmt: skip
    made.add_argument("name", nargs="?", metavar="AGENT", help="an agent")
    made.add_argument("--to", default="", metavar="HOST", help="where to; by default where placement would put it")
    made.add_argument("--source", type=Path, metavar="DIR", help="its code; by default the release of this host")
    made.add_argument("--new", type=Path, metavar="DIR", help="code that shall replace it")
    made.add_argument("--readable", action=argparse.BooleanOptionalAction,
                      help="whether the old code can read the files that the new one writes")  # fmt: skip
    made.add_argument("--fleet", type=Path, metavar="PATH", help="a fleet file or inventory folder, not what runs")
    made.add_argument("-i", "--inventory", type=Path, help="inventory that has the hosts")
    made.add_argument("--prometheus", default="", metavar="URL", help="to ask for the calls of all hosts")
    made = _add(commands, "logs", "logs:logs", "what an instance of this host wrote",
                more="Also when the shim is gone.",
                example="logs MemoryClient -n 20 -f")  # fmt: skip
    made.add_argument("name", metavar="NAME", help="an agent or an instance")
    made.add_argument("-n", "--lines", type=_count, default=100, metavar="N", help="lines from the end (100)")
    made.add_argument("-f", "--follow", action="store_true", help="go on as it is written, until Ctrl-C")
    _add(commands, "doctor", "doctor:doctor", "what is wrong on this host, and how to mend it",
         more="Works with nothing running.\nExit code 1 if something is wrong.", example="doctor")  # fmt: skip


def _add_acting(commands: Any) -> None:
    texts = {"start": "start an agent or an instance", "stop": "stop an agent or an instance",
             "restart": "restart an agent or an instance"}  # fmt: skip
    for action, text in texts.items():
        made = _add(commands, action, "actions:act", text, more="Waits until it is so.",
                    example=f"{action} MemoryClient" + ("\nstop --all" if action == "stop" else ""))  # fmt: skip
        made.add_argument(
            "name", metavar="NAME", nargs="?" if action == "stop" else None, help="an agent or an instance"
        )
        made.add_argument(
            "--wait", action=argparse.BooleanOptionalAction, default=True, help="until it is so (default)"
        )
        made.add_argument("--timeout", type=_seconds, default=60.0, metavar="S", help="seconds to wait (60)")
        made.set_defaults(action=action)
        if action == "stop":
            made.add_argument("--all", action="store_true", help="drain this host, stop everything and end the shim")

    made = _add(commands, "drain", "placing:drain", "move everything off a host, without failed calls",
                more="What may not\nrun elsewhere stays and is named; exit code 1 then. It may be run again.",
                example="drain gpu2 --reason 'a new disk'")  # fmt: skip
    made.add_argument("host", metavar="HOST", help="a host of the inventory")
    made.add_argument("--reason", default="", metavar="TEXT", help="why, for others to read")
    made.add_argument("--wait", type=_wait, default=300.0, metavar="S", help="seconds to wait (300); 0: do not wait")
    made = _add(commands, "undrain", "placing:undrain", "let instances be placed on a host again",
                more="What was moved\nstays where it is, unless the fleet file gives it a failback_s.",
                example="undrain gpu2")  # fmt: skip
    made.add_argument("host", metavar="HOST", help="a host of the inventory")


def _wait(text: str) -> float:
    return 0.0 if float(text) == 0 else _seconds(text)


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _span(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if text[-1:] not in units:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed: a number and s, m, h or d, as 1h")
    return _seconds(text[:-1]) * units[text[-1]]


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("0 or more")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError("more than 0")
    return number
