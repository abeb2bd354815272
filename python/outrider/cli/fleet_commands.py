"""`outrider fleet ...`: look at a fleet file before it is published."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from outrider.cli.output import console, print_json, table
from outrider.errors import EXIT_FAILED, EXIT_USAGE, FleetError, OutriderError, UnknownAgent
from outrider.fleet import graph, importer, schema
from outrider.fleet.document import document, to_yaml
from outrider.fleet.effective import default_probes, probe_port
from outrider.fleet.inventory import Opened, open_inventory
from outrider.fleet.load import load_fleet
from outrider.fleet.placement import Slot, place
from outrider.fleet.rules import nearest
from outrider.fleet.spec import Agent, Fleet, Probe

HEADINGS = ("agent", "mode", "hosts", "ports", "needs")
NEXT = "say under `defaults` what runs them: `module` or `command`, and `code`"


def add_fleet_commands(commands: Any) -> None:
    """Add `fleet` and what is below it to the subparsers of the command line."""
    fleet = commands.add_parser("fleet", help="validate, show, draw, import a fleet file")
    verbs = fleet.add_subparsers(dest="verb", metavar="VERB", required=True)

    def add(name: str, handler: Any, text: str, example: str) -> argparse.ArgumentParser:
        example = f"example: outrider fleet {name} {example}"
        made: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text, epilog=example)
        made.add_argument("--json", action="store_true", help="JSON for programs")
        made.set_defaults(handler=handler)
        return made

    made = add("validate", _validate, "find every problem of a fleet file", "inventories/reference")
    _add_path(made)
    made.add_argument("--secrets", action="store_true", help="also that files of secrets can be read on this machine")
    made = add("show", _show, "the agents as they will run, defaults merged; or one, whole", "TTSService")
    made.add_argument("what", nargs="*", metavar="[PATH] [NAME]", help="fleet file or inventory folder; an agent")
    made.add_argument("--agent", metavar="NAME", help="an agent, as NAME")
    made.add_argument("-i", "--inventory", type=Path, help="inventory that has the hosts")
    made = add("graph", _graph, "waves of needs, and cycles", "inventories/reference --dot | dot -Tsvg > fleet.svg")
    _add_path(made)
    made.add_argument("--dot", action="store_true", help="a drawing for Graphviz")
    made = add(
        "import", _import, "make a fleet file from start-up files", "mainpc_startup.yaml pc2_startup.yaml -o f.yml"
    )
    made.add_argument("files", type=Path, nargs="+", metavar="FILE", help="start-up file; its first word is the host")
    made.add_argument("--host", action="append", default=[], metavar="FILE=NAME", help="the host that FILE is for")
    made.add_argument("-o", "--output", type=Path, metavar="OUT", help="write the fleet file here")
    made.add_argument("--force", action="store_true", help="replace OUT if it is there")
    made.add_argument("--name", default="imported", help="name of the fleet")
    made.add_argument("--port-offset", type=int, default=0, metavar="N", help="what ${PORT_OFFSET} stands for")
    made.add_argument("--keep-intervals", action="store_true", help="carry the files' health check intervals")
    made = add("schema", _schema, "JSON Schema of a fleet file, for editors", "> fleet.schema.json")
    made.add_argument("--reference", action="store_true", help="the reference page instead")


def _add_path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, nargs="?", metavar="PATH", help="fleet file or inventory folder")
    parser.add_argument("-i", "--inventory", type=Path, help="inventory that has the hosts")


def _validate(args: argparse.Namespace) -> int:
    opened = Opened(Path(), None)
    try:
        opened = open_inventory(args.path, args.inventory)
        fleet = load_fleet(opened.fleet_file, opened.hosts, local_secrets=args.secrets)
    except FleetError as error:
        if args.json:
            print_json({"ok": False, "problems": error.problems, "warnings": opened.warnings})
            return EXIT_FAILED
        raise
    cycles = graph.cycles(fleet)
    counts = {"agents": len(fleet.agents), "instances": _instances(fleet), "needs": _needs(fleet)}
    if args.json:
        report = {"ok": True, "fleet": fleet.name, "file": str(opened.fleet_file), **counts}
        print_json({**report, "cycles": cycles, "problems": [], "warnings": opened.warnings})
        return 0
    _warn(opened.warnings)
    where = f" on {_count(len(opened.hosts), 'host')}" if opened.hosts is not None else ""
    print(
        f"fleet {fleet.name} is valid: {_count(counts['agents'], 'agent')}, {_count(counts['instances'], 'instance')}"
        f"{where}, {_count(counts['needs'], 'need')}, {_count(len(cycles), 'cycle')}"
    )
    return 0


def _show(args: argparse.Namespace) -> int:
    path, name = _path_and_name([*args.what, *([args.agent] if args.agent else [])])
    opened = open_inventory(path, args.inventory)
    fleet = load_fleet(opened.fleet_file, opened.hosts)
    slots = place(fleet, opened.hosts, {}) if opened.hosts else {}
    if name is not None and name not in fleet.agents:
        raise UnknownAgent(f"fleet {fleet.name} has no agent {name}", hint=nearest(name, fleet.agents))
    if name is not None:
        whole = _whole(fleet, name, slots.get(name, ()))
        print_json(whole) if args.json else print(yaml.safe_dump(whole, sort_keys=False, width=118).rstrip())
    elif args.json:
        print_json({"fleet": fleet, "placement": slots})
    else:
        width = console().width
        console().print(table(HEADINGS, _clipped(_rows(fleet, slots), width)))
    return 0


def _whole(fleet: Fleet, name: str, slots: Sequence[Slot]) -> dict[str, Any]:
    """One agent with everything that is left open decided, as plain values."""
    agent = fleet.agents[name]
    plain: dict[str, Any] = {"name": name, **json.loads(msgspec.json.encode(agent))}
    probes = default_probes(agent) if agent.probes is None else agent.probes
    plain["probes"] = [_asked(agent, probe) for probe in probes]
    plain["restart"] = msgspec.structs.asdict(agent.restart)
    plain["placement"] = [{"instance": slot.instance, "host": slot.host} for slot in slots]
    plain["needed_by"] = list(graph.dependants(fleet, name))
    return plain


def _asked(agent: Agent, probe: Probe) -> dict[str, Any]:
    """A probe with its defaults, without what its type does not use."""
    unused = {"request", "command", "path"} - {"http": {"path"}, "zmq": {"request"}, "command": {"command"}}.get(
        probe.type, set()
    )
    asked = {**msgspec.structs.asdict(probe), "port": probe_port(agent, probe), "command": list(probe.command)}
    if probe.type in ("command", "heartbeat"):
        unused.add("port")
    return {key: value for key, value in asked.items() if key not in unused}


def _path_and_name(words: list[str]) -> tuple[Path | None, str | None]:
    """Of up to two words the one that is there as a file is the path, the other an agent."""
    paths = [word for word in words if Path(word).exists() or "/" in word or word.endswith((".yml", ".yaml"))]
    names = [word for word in words if word not in paths]
    if len(paths) > 1 or len(names) > 1:
        raise _usage(f"one PATH and one NAME, not {' '.join(words)}")
    return (Path(paths[0]) if paths else None), (names[0] if names else None)


def _rows(fleet: Fleet, slots: Mapping[str, Sequence[Slot]]) -> list[list[str]]:
    """A line for each agent; what it can work without has a question mark."""
    rows = []
    for name, needs in graph.edges(fleet).items():
        agent = fleet.agents[name]
        hosts = [slot.host for slot in slots.get(name, ())] or list(agent.on_host())
        ports = ", ".join(f"{label} {port}" for label, port in agent.ports.items())
        optional = {need.agent for need in agent.need_list() if not need.required}
        shown = ", ".join(f"{need}?" if need in optional else need for need in needs)
        rows.append([name, agent.mode, ", ".join(hosts), ports, shown])
    return rows


def _clipped(rows: list[list[str]], width: int) -> list[list[str]]:
    """Rows whose last cell is cut where the line would end."""
    taken = sum(max(len(row[index]) for row in rows) + 3 for index in range(len(HEADINGS) - 1)) if rows else 0
    room = max(width - taken, 16)
    return [[*row[:-1], row[-1] if len(row[-1]) <= room else row[-1][: room - 3] + "..."] for row in rows]


def _graph(args: argparse.Namespace) -> int:
    opened = open_inventory(args.path, args.inventory)
    fleet = load_fleet(opened.fleet_file, opened.hosts)
    waves, cycles = graph.waves(fleet), graph.cycles(fleet)
    if args.json:
        print_json({"waves": waves, "cycles": cycles, "needs": graph.edges(fleet)})
    elif args.dot:
        print(graph.dot(fleet))
    else:
        for number, wave in enumerate(waves, 1):
            _paragraph(f"wave {number} ({len(wave)}): ", ", ".join(wave))
        for cycle in cycles:
            _paragraph("cycle, started together: ", ", ".join(cycle))
    return 0


def _import(args: argparse.Namespace) -> int:
    imported = importer.import_files(args.files, args.port_offset, _host_names(args.host, args.files))
    if args.output and args.output.exists() and not args.force:
        raise OutriderError(f"{args.output} is there already", hint="--force replaces it")
    text = to_yaml(document(imported, args.name, args.keep_intervals))
    if args.output:
        command = " ".join(file.name for file in args.files)
        args.output.write_text(f"---\n# Made by `outrider fleet import {command}`.\n# Now {NEXT}.\n{text}")
    if args.json:
        agents = [{**msgspec.structs.asdict(agent)} for agent in imported.agents]
        print_json({"hosts": imported.hosts, "agents": agents, "warnings": imported.warnings})
        return 0
    _warn(imported.warnings)
    names = {agent.name for agent in imported.agents}
    found = f"{_count(len(names), 'agent')}, {_count(len(imported.agents), 'instance')} on {', '.join(imported.hosts)}"
    print(f"{args.output or 'imported'}: {found}; {NEXT}", file=sys.stderr)
    if not args.output:
        print(text, end="")
    return 0


def _host_names(given: list[str], files: list[Path]) -> dict[Path, str]:
    names = {}
    for text in given:
        file, found, name = text.rpartition("=")
        if not found or Path(file) not in files:
            raise _usage(f"--host {text}: expected FILE=NAME with one of the files: {', '.join(map(str, files))}")
        names[Path(file)] = name
    return names


def _schema(args: argparse.Namespace) -> int:
    text = schema.reference() if args.reference else schema.json_schema()
    if args.json and args.reference:
        print_json({"reference": text})
    else:
        print(text, end="")
    return 0


def _usage(message: str) -> OutriderError:
    error = OutriderError(message)
    error.exit_code = EXIT_USAGE
    return error


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _paragraph(head: str, text: str) -> None:
    width = min(console().width, 120)
    print(textwrap.fill(head + text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def _instances(fleet: Fleet) -> int:
    return sum(agent.instance_count() for agent in fleet.agents.values())


def _needs(fleet: Fleet) -> int:
    return sum(len(needs) for needs in graph.edges(fleet).values())


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")
