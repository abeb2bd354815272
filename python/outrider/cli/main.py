"""The command line: `outrider COMMAND`. Exit codes: 0 ok, 1 failed or no-go, 2 usage, 3 Consul not reachable."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from outrider.cli import actions, doctor, fleet_state
from outrider.cli.fleet_commands import add_fleet_commands
from outrider.errors import OutriderError

Handler = Callable[[argparse.Namespace], int]
EMBEDDED = Path(".outrider/run")
INSTALLED = Path("/run/outrider")


def default_runtime() -> Path:
    """$OUTRIDER_RUNTIME, else this checkout's demo if it is there, else the installed shim's."""
    if named := os.environ.get("OUTRIDER_RUNTIME"):
        return Path(named)
    return EMBEDDED if EMBEDDED.is_dir() else INSTALLED


def build_parser() -> argparse.ArgumentParser:
    """All commands with their help."""
    parser = argparse.ArgumentParser(prog="outrider", description="One self-healing fleet of agents on a few hosts.")
    parser.add_argument("--version", action="version", version=f"outrider {version('outrider')}")
    parser.add_argument("--runtime", type=Path, default=default_runtime(), help="the shim's runtime folder")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, handler: Handler, text: str, example: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, epilog=f"example: outrider {example}")
        made.add_argument("--json", action="store_true", help="JSON for programs")
        made.set_defaults(handler=handler)
        return made

    add("status", fleet_state.status, "every instance of the fleet, problems first", "status")
    add("agents", fleet_state.agents, "the agents, or one of them", "agents MemoryClient").add_argument(
        "name", nargs="?"
    )
    add("lookup", fleet_state.look_up, "who serves an agent now", "lookup MemoryClient").add_argument("name")
    logs = add("logs", fleet_state.logs, "what an instance of this host wrote", "logs MemoryClient -f")
    logs.add_argument("name")
    logs.add_argument("-n", "--lines", type=int, default=100, help="lines from the end")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it is written")
    for action in ("start", "stop", "restart"):
        made = add(action, actions.act, f"{action} an agent or one instance", f"{action} MemoryClient")
        made.add_argument("name", nargs="?")
        made.add_argument("--no-wait", action="store_true", help="do not wait until it is so")
        made.set_defaults(action=action)
        if action == "stop":
            made.add_argument("--all", action="store_true", help="drain this host, stop everything and end the shim")
    add("doctor", doctor.doctor, "what is wrong on this host and how to mend it", "doctor")
    add_fleet_commands(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.handler(args))
    except OutriderError as error:
        _print_error(error, as_json=getattr(args, "json", False))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read us has enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _print_error(error: OutriderError, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": error.message, "hint": error.hint}), file=sys.stderr)
    else:
        print(f"outrider: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
