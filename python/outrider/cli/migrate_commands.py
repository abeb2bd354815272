"""`outrider migrate ...`: what each command takes. What it does is in migrating.py."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from outrider.cli.parser import lazily

EPILOG = """\
exit codes: 0 ok, finalised or rehearsed, 1 rolled back, held, cancelled or refused, 2 usage, 3 Consul not reachable
A migration goes on whoever watches it: Ctrl-C ends the watching only."""


def add_migrate_commands(commands: Any) -> None:
    """Add `migrate` and what is below it to the subparsers of the command line."""
    migrate = commands.add_parser("migrate", help="move agents to another host or version, judged")
    verbs = migrate.add_subparsers(dest="verb", metavar="VERB", required=True)
    made = _add(verbs, "plan", "plan", "what would be done: steps, limits, gates, room; writes nothing",
                "migrate plan Memory --to gpu2")  # fmt: skip
    _add_wish(made)
    made = _add(verbs, "run", "run", "move agents, and watch it", "migrate run Memory --to gpu2 --why 'a new disk'\n"
                "migrate run --from gpu1 --to gpu2 --detach")  # fmt: skip
    _add_wish(made)
    made.add_argument("--detach", action="store_true", help="do not watch it")
    made = _add(
        verbs, "watch", "watch", "follow migrations until they have ended", "migrate watch 20260102-030405-0a1b2c"
    )
    made.add_argument("ids", nargs="*", metavar="ID", help="migrations; by default all that have not ended")
    made = _add(verbs, "list", "show_all", "every migration, the newest last", "migrate list --active")
    made.add_argument("--active", action="store_true", help="only those that have not ended")
    _add_id(_add(verbs, "show", "show", "one, with its whole journal", "migrate show 20260102-030405-0a1b2c"))
    _add_steering(verbs)


def _add_steering(verbs: Any) -> None:
    texts = {
        "pause": "begin no further step; what goes back goes back",
        "resume": "go on",
        "approve": "agree to the cutover, before it begins",
        "rollback": "go back",
        "resolve": "decide about one that is held",
    }
    for verb, text in texts.items():
        end = " --keep" if verb == "resolve" else ""
        made = _add(verbs, verb, "steer", text, f"migrate {verb} 20260102-030405-0a1b2c{end}")
        _add_id(made)
        if verb in ("approve", "rollback", "resolve"):
            made.add_argument("--said", default="", metavar="TEXT", help="why, for others to read")
        if verb == "approve":
            verdict = "instead that, without a verdict, the new instance is well enough; while it is judged"
            made.set_defaults(approves="cutover")
            made.add_argument("--verdict", dest="approves", action="store_const", const="verdict", help=verdict)
        if verb == "resolve":
            choice = made.add_mutually_exclusive_group(required=True)
            keep, back = "the new instance stays", "try again to go back"
            choice.add_argument("--keep", dest="resolution", action="store_const", const="keep", help=keep)
            choice.add_argument("--back", dest="resolution", action="store_const", const="back", help=back)
            lost = "with --back: without what the new one accepted, whose host never comes back"
            made.add_argument("--accept-loss", action="store_true", help=lost)


def _add(verbs: Any, name: str, handler: str, text: str, example: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"{EPILOG}\nexample: " + "\n         ".join(f"outrider {line}" for line in example.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--json", action="store_true", help="JSON for programs")
    made.add_argument("--runtime", type=Path, metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    made.set_defaults(handler=lazily(f"migrating:{handler}"))
    return made


def _add_id(made: argparse.ArgumentParser) -> None:
    made.add_argument("id", metavar="ID", help="a migration, as `migrate list` shows it")


def _add_wish(made: argparse.ArgumentParser) -> None:
    made.add_argument("agents", nargs="*", metavar="AGENT", help="what to move; needs go first")
    made.add_argument("--from", dest="leave", default="", metavar="HOST", help="everything that runs on this host")
    made.add_argument("--to", default="", metavar="HOST", help="where to; by default where it is, at the new version")
    made.add_argument("--instance", default="", metavar="NAME", help="which, if the agent has several")
    made.add_argument("--rehearse", action="store_true", help="only what comes before the cutover, then away again")
    made.add_argument(
        "--readable", action="store_true", help="the old version can read the files that the new one writes"
    )
    made.add_argument("--override", default="", metavar="REASON", help="go on though a gate of its risk is not met")
    made.add_argument("--why", default="", metavar="TEXT", help="for others to read")
    policy = made.add_argument_group("how it is judged, by default as its risk says")
    policy.add_argument(
        "--canary", type=_share, metavar="SHARE", help="of the calls, to a new replica at first; 0: none"
    )
    policy.add_argument("--canary-s", type=_time, metavar="S", help="seconds at most that this is judged")
    policy.add_argument("--verify-s", type=_time, metavar="S", help="seconds at most after the cutover")
    policy.add_argument("--undecided", choices=("hold", "rollback", "accept"), help="what follows without a verdict")
    policy.add_argument("--approvals", type=_number, metavar="N", help="people who must agree before the cutover")


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError("from 0 to less than 1")
    return share


def _time(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError("more than 0")
    return seconds


def _number(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 9:
        raise argparse.ArgumentTypeError("from 0 to 9")
    return number
