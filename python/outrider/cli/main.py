"""The command line: `outrider COMMAND`. Exit codes: 0 ok, 1 failed or no-go, 2 usage, 3 Consul not reachable."""

from __future__ import annotations

import json
import os
import sys

from outrider.cli.parser import build_parser
from outrider.errors import FleetError, OutriderError

INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code. An error is one message with a hint on stderr, never a traceback."""
    words = sys.argv[1:] if argv is None else argv
    try:
        args = build_parser(words).parse_args(words)
        args.json = args.json or args.json_first
        code = int(args.handler(args))
        sys.stdout.flush()
    except OutriderError as error:
        print_error(error, as_json="--json" in words)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print_error(OutriderError(f"{where}{error.strerror or error}"), as_json="--json" in words)
        return OutriderError.exit_code
    except SystemExit as end:  # argparse after --help and --version
        return end.code if isinstance(end.code, int) else 0
    return code


def print_error(error: OutriderError, as_json: bool) -> None:
    """On stderr: for people the message and what to do, for programs one JSON object."""
    if as_json:
        said = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
        if isinstance(error, FleetError):
            said["problems"] = error.problems
        print(json.dumps(said), file=sys.stderr)
    else:
        print(f"outrider: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
