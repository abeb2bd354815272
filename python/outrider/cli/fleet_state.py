"""Commands that show the fleet: status, agents, lookup, logs."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict

from rich.text import Text

from outrider.cli.output import console as make_console
from outrider.cli.output import instances_table, print_json, status_text, summary_line, table
from outrider.cli.shim_client import ShimClient
from outrider.discovery.api import lookup
from outrider.errors import EXIT_FAILED, UnknownAgent
from outrider.host.reports import InstanceReport, StatusReport


def status(args: argparse.Namespace) -> int:
    """`outrider status`: exit 1 if any instance that should run does not pass."""
    report = ShimClient(args.runtime).get("/v1/status", StatusReport)
    if args.json:
        print_json(report)
    else:
        console = make_console()
        console.print(summary_line(report))
        console.print(instances_table(report.instances))
    ill = [item for item in report.instances if item.status not in ("passing", "warning", "stopped")]
    return EXIT_FAILED if ill else 0


def agents(args: argparse.Namespace) -> int:
    """`outrider agents [NAME]`: one line an agent, or the instances of one."""
    report = ShimClient(args.runtime).get("/v1/status", StatusReport)
    by_agent: dict[str, list[InstanceReport]] = defaultdict(list)
    for item in report.instances:
        by_agent[item.agent].append(item)
    if args.name:
        if args.name not in by_agent:
            raise UnknownAgent(f"no agent {args.name} in fleet {report.fleet}", hint="`outrider agents` lists them")
        by_agent = defaultdict(list, {args.name: by_agent[args.name]})
    if args.json:
        print_json({name: items for name, items in sorted(by_agent.items())})
    elif args.name:
        make_console().print(instances_table(by_agent[args.name]))
    else:
        make_console().print(
            table(["agent", "passing", "hosts", "status"], [_row(*item) for item in sorted(by_agent.items())])
        )
    return 0


def _row(name: str, items: list[InstanceReport]) -> list[str | Text]:
    passing = sum(item.status == "passing" for item in items)
    worst = next((item.status for item in items if item.status != "passing"), "passing")
    return [name, f"{passing}/{len(items)}", ", ".join(sorted({item.host for item in items})), status_text(worst)]


def look_up(args: argparse.Namespace) -> int:
    """`outrider lookup NAME`: what an agent on this host would be told. Exit 1 if nothing serves it."""
    answer = lookup(args.name, runtime=str(args.runtime))
    if args.json:
        print_json(
            {"agent": answer.agent, "instances": [_plain(i) for i in answer.instances], "age_s": answer.age_s,
             "source": answer.source}
        )  # fmt: skip
    else:
        console = make_console()
        console.print(
            f"{answer.agent}: {len(answer.instances)} instances, from the {answer.source}, {answer.age_s:.2f} s old"
        )
        rows: list[list[str | Text]] = [
            [i.instance, i.host, f"{i.address}:{i.port}", status_text(i.status), i.role, i.version]
            for i in answer.instances
        ]
        console.print(table(["instance", "host", "address", "status", "role", "version"], rows))
    return 0 if answer.instances else EXIT_FAILED


def _plain(instance: object) -> dict[str, object]:
    fields: tuple[str, ...] = instance.__struct_fields__  # type: ignore[attr-defined]
    return {name: getattr(instance, name) for name in fields}


def logs(args: argparse.Namespace) -> int:
    """`outrider logs NAME [-n N] [-f]`: what an instance of this host wrote."""
    client = ShimClient(args.runtime)
    report = client.get("/v1/status", StatusReport)
    names = [
        item.instance for item in report.instances if args.name in (item.instance, item.agent) and item.pid is not None
    ]
    names = names or [item.instance for item in report.instances if args.name in (item.instance, item.agent)]
    if not names:
        raise UnknownAgent(
            f"no agent or instance {args.name} in fleet {report.fleet}", hint="`outrider agents` lists them"
        )
    follow = "&follow=1" if args.follow else ""
    reply = client.request("GET", f"/v1/logs/{names[0]}?lines={args.lines}{follow}", None if args.follow else 10.0)
    while chunk := reply.read1(65536):
        sys.stdout.write(chunk.decode(errors="replace"))
        sys.stdout.flush()
    return 0
