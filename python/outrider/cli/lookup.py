"""`outrider lookup NAME [--watch]`: what an agent on this host would be told."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from msgspec import Struct

from outrider.cli.output import count, print_json
from outrider.discovery.api import lookup, watch
from outrider.discovery.records import Answer
from outrider.errors import EXIT_FAILED, ConsulUnreachable

OLD_S = 5.0


class InstanceView(Struct, frozen=True):
    """An instance as `--json` shows it: an object, where the catalogue keeps an array."""

    agent: str
    instance: str
    host: str
    address: str
    port: int
    ports: dict[str, int]
    status: str
    role: str
    epoch: int
    version: str
    weight: float
    since: float


class AnswerView(Struct, frozen=True):
    """`lookup --json`."""

    agent: str
    instances: tuple[InstanceView, ...]
    age_s: float
    source: str


def look_up(args: argparse.Namespace) -> int:
    """Look up once, or show every change. Exit code 1 if nobody serves it."""
    runtime = str(args.runtime)
    if args.watch:
        for answer in watch(args.name, runtime=runtime):
            show(answer, as_json=args.json, lines=True)
    if not (Path(runtime) / "catalogue.head").exists():
        return _ask_consul(args)
    answer = lookup(args.name, runtime=runtime)
    show(answer, as_json=args.json)
    return 0 if answer.instances else EXIT_FAILED


def _ask_consul(args: argparse.Namespace) -> int:
    """No shim runs here: ask the Consul agent that it would use."""
    from outrider.cli.where import config_of

    if config := config_of(args.runtime):
        os.environ.setdefault("CONSUL_HTTP_ADDR", f"{config.consul.scheme}://{config.consul.host}:{config.consul.port}")
    try:
        answer = lookup(args.name, runtime=str(args.runtime))
    except ConsulUnreachable as error:
        raise ConsulUnreachable(f"no catalogue in {args.runtime}, and {error.message}", hint=error.hint) from error
    show(answer, as_json=args.json)
    return 0 if answer.instances else EXIT_FAILED


def show(answer: Answer, *, as_json: bool, lines: bool = False) -> None:
    """One answer, whole. `lines`: one of several."""
    if as_json:
        print_json(view(answer), lines=lines)
        return
    stamp = time.strftime("%H:%M:%S ") if lines else ""
    print(f"{stamp}{sentence(answer)}", flush=lines)
    # Not a rich table: importing it takes longer than the whole command.
    rows = [(i.instance, i.host, f"{i.address}:{i.port}", i.status, i.role, i.version[:8]) for i in answer.instances]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if not as_json and answer.source == "catalogue" and answer.age_s > OLD_S:
        print("outrider: nobody confirms this any more; `outrider doctor` tells why", file=sys.stderr)


def sentence(answer: Answer) -> str:
    """Who serves it, by whose word, and how old that is."""
    served = f"served by {count(len(answer.instances), 'instance')}" if answer.instances else "served by nobody now"
    held = ", held: callers wait" if answer.held else ""
    panic = ", none of them well" if any(i.status == "critical" for i in answer.instances) else ""
    return f"{answer.agent}: {served}{panic}{held} ({answer.source}, confirmed {answer.age_s:.1f} s ago)"


def view(answer: Answer) -> AnswerView:
    """The answer as `--json` shows it."""
    instances = tuple(
        InstanceView(**{name: getattr(i, name) for name in InstanceView.__struct_fields__}) for i in answer.instances
    )
    return AnswerView(answer.agent, instances, answer.age_s, answer.source)
