"""`outrider risk [AGENT]`: how risky it is to move an agent, and why; or each agent of the fleet."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from outrider.cli.output import clipped, console, print_json, table
from outrider.cli.parser import UsageError
from outrider.errors import EXIT_FAILED

if TYPE_CHECKING:
    from outrider.migration.risk.assess import Gate, Risk
    from outrider.migration.risk.score import Contribution

WORST = 3
MET = {True: "yes", False: "no", None: "-"}


def risk(args: argparse.Namespace) -> int:
    """One agent whole, or a line each. Exit code 1 if the one may not be moved."""
    if not args.name and (args.source or args.new or args.readable is not None):
        raise UsageError("--source, --new and --readable are about one agent", hint="outrider risk AGENT --source DIR")
    if args.prometheus and (args.fleet or args.inventory):
        raise UsageError("--prometheus knows what runs, --fleet and -i are for what need not", hint="leave one out")
    found = _ask(args)
    if args.json:
        print_json(found[0] if args.name else found)
    elif args.name:
        _show_one(found[0])
    else:
        _show_all(found)
    return EXIT_FAILED if args.name and found[0].band.strategy == "refused" else 0


def _ask(args: argparse.Namespace) -> list[Risk]:
    from outrider.migration.risk.survey import Asked, of_file, of_running

    asked = Asked(args.name or "", args.to, args.source, args.new, args.readable)
    if args.fleet or args.inventory:
        return of_file(args.fleet, args.inventory, asked)
    from outrider.cli.where import config_of, consul_of
    from outrider.host.shim_client import ShimClient

    config = config_of(args.runtime)
    releases: Path | None = config.releases if config else None
    consul = consul_of(args.runtime)
    return of_running(consul, ShimClient(args.runtime), asked, releases=releases, prometheus=args.prometheus)


def _show_all(found: list[Risk]) -> None:
    out = console()
    headings = ["agent", "points", "unknown", "band", "strategy", "most of it"]
    rows = [[each.agent, str(each.points), str(each.unknown), each.band.name, each.band.strategy, worst(each)]
            for each in found]  # fmt: skip
    out.print(table(headings, clipped(rows, out.width, headings)))
    print("\nunknown: points for want of a fact; all about one agent: outrider risk AGENT")
    for why, keys in _common(found):
        print(f"  of each {', '.join(keys)}: {why}")
    for each in found[:1]:
        print(f"probability of failure: {each.probability}")


def _common(found: list[Risk]) -> Iterator[tuple[str, list[str]]]:
    """What is unknown of every agent, by why it is."""
    lacking = [{(each.evidence, each.key) for each in risk.not_known} for risk in found]
    everywhere = set.intersection(*lacking) if lacking else set()
    for why in sorted({why for why, _ in everywhere}):
        yield why, sorted(key for reason, key in everywhere if reason == why)


def worst(risk: Risk) -> str:
    """The contributions with the most points; what is measured before what is not."""
    ranked = sorted(risk.contributions, key=lambda each: (not each.measured, -each.points))
    told = [f"{_said(each)} +{each.points}" for each in ranked[:WORST] if each.points > 0]
    return risk.stop or ", ".join(told)


def _said(each: Contribution) -> str:
    return each.said if each.said.startswith(each.name) else f"{each.name} {each.said}"


def _show_one(risk: Risk) -> None:
    out = console()
    print(f"{risk.agent}: {risk.points} points, {risk.band.name}: {risk.band.strategy}")
    print(f"{_way(risk)}; likelihood {risk.likelihood} of 20, impact {risk.impact} of 15, above them {risk.extra:+d}")
    if risk.stop:
        print(f"refused: {risk.stop}")
    elif risk.floor:
        print(f"at least {risk.band.name}: {risk.floor}")
    known = [_row(each) for each in risk.contributions if each.measured]
    out.print()
    out.print(table(["", "factor", "points", "found", "evidence"], known, wrap=("factor", "found", "evidence")))
    if risk.not_known:
        rows = [[each.key, each.name, f"{each.points:+d}", each.evidence] for each in risk.not_known]
        out.print()
        out.print(table(["", "not known", "points", "why"], rows, wrap=("not known", "why")))
    if risk.gates:
        out.print()
        out.print(table(["gate", "wanted", "met", "evidence"], map(_gate, risk.gates), wrap=("wanted", "evidence")))
    print(f"\nprobability of failure: {risk.probability}")


def _way(risk: Risk) -> str:
    if not risk.source:
        return f"to {risk.target}" if risk.target else "nowhere placed"
    why = f" ({risk.choice})" if risk.choice else ""
    return (f"stays on {risk.source}" if risk.source == risk.target else f"from {risk.source} to {risk.target}") + why


def _row(each: Contribution) -> list[str]:
    of = f"{each.points:+d} of {each.most}" if each.most else f"{each.points:+d}"
    return [each.key, each.name, of if each.points else "0", each.said, each.evidence]


def _gate(each: Gate) -> list[str]:
    return [each.name, each.wanted, MET[each.met], each.evidence]
