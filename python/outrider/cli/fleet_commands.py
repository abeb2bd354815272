"""`outrider fleet ...`: look at a fleet file before it is published."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

from outrider.cli.output import console, print_json, table
from outrider.errors import EXIT_FAILED, FleetError
from outrider.fleet import graph, document, importer, schema
from outrider.fleet.hosts import SERVERS, hosts_of, members, read_inventory
from outrider.fleet.load import load_fleet
from outrider.fleet.placement import place
from outrider.fleet.spec import Fleet, Host

Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_fleet_commands(commands: Any) -> None:
    """Add `fleet` and what is below it."""
    fleet = commands.add_parser("fleet", help="validate, show, draw, import a fleet file")
    verbs = fleet.add_subparsers(dest="verb", metavar="VERB", required=True)

    def add(name: str, handler: Any, text: str, *, file: bool = True) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
        made.add_argument("--json", action="store_true", help="JSON for programs")
        made.set_defaults(handler=handler)
        if file:
            made.add_argument("path", type=Path, nargs="?", default=Path(), help="fleet file or inventory folder")
            made.add_argument("-i", "--inventory", type=Path, help="inventory that has the hosts")
        return made

    add("validate", _validate, "find every problem of a fleet file")
    add("show", _show, "the agents as they will run, defaults merged").add_argument(
        "--agent", help="one of them, whole"
    )
    add("graph", _graph, "waves of needs, and cycles")
    made = add("import", _import, "make a fleet file from start-up files", file=False)
    made.add_argument("files", type=Path, nargs="+", metavar="FILE")
    made.add_argument("-o", "--output", type=Path, help="write the fleet file here")
    made.add_argument("--name", default="imported", help="name of the fleet")
    made.add_argument("--port-offset", type=int, default=0, help="what ${PORT_OFFSET} stands for")
    made.add_argument("--keep-intervals", action="store_true", help="carry the files' health check intervals")
    made = add("schema", _schema, "JSON Schema of a fleet file, for editors", file=False)
    made.add_argument("--reference", action="store_true", help="the reference page instead")


def _read(args: argparse.Namespace) -> tuple[Fleet, tuple[Host, ...] | None, list[str]]:
    """The fleet, its hosts if an inventory is known, and warnings."""
    path, inventory = args.path, args.inventory
    if path.is_dir():
        inventory, path = inventory or path, path / "fleet.yml"
    elif inventory is None and (path.parent / "hosts.yml").exists():
        inventory = path.parent
    if inventory is None:
        return load_fleet(path), None, ["no inventory: whether the hosts exist and have room was not checked (-i)"]
    data = read_inventory(inventory)
    if not path.exists():
        variables = data.get("_meta", {}).get("hostvars", {}).values()
        named = next((item["fleet_file"] for item in variables if "fleet_file" in item), None)
        path = Path(named.replace("{{ inventory_dir }}", str(inventory))
                    .replace("{{ inventory_dir | dirname }}", str(inventory.parent))) if named else path  # fmt: skip
    hosts = hosts_of(data)
    servers = len(members(data, SERVERS))
    warnings = []
    if servers < 3:
        warnings.append(
            f"{servers} Consul server{'s' if servers != 1 else ''}: three are needed to go on when one dies; "
            "with fewer, its loss stops every write, so nothing fails over until it is back"
        )
    return load_fleet(path, hosts), hosts, warnings


def _validate(args: argparse.Namespace) -> int:
    try:
        fleet, hosts, warnings = _read(args)
    except FleetError as error:
        if args.json:
            print_json({"ok": False, "problems": error.problems, "warnings": []})
            return EXIT_FAILED
        raise
    needs = sum(len(found) for found in graph.edges(fleet).values())
    instances = sum(agent.instance_count() for agent in fleet.agents.values())
    cycles = graph.cycles(fleet)
    if args.json:
        counts = {"agents": len(fleet.agents), "instances": instances, "needs": needs}
        print_json({"ok": True, "fleet": fleet.name, **counts, "cycles": cycles, "problems": [], "warnings": warnings})
        return 0
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    where = f" on {len(hosts)} host{'s' if len(hosts) != 1 else ''}" if hosts is not None else ""
    print(
        f"fleet {fleet.name} is valid: {len(fleet.agents)} agents, {instances} instances{where}, {needs} needs, "
        f"{len(cycles)} cycle{'s' if len(cycles) != 1 else ''}"
    )
    return 0


def _show(args: argparse.Namespace) -> int:
    fleet, hosts, _ = _read(args)
    if args.agent:
        if args.agent not in fleet.agents:
            raise FleetError([f"no agent {args.agent} in fleet {fleet.name}"])
        plain = msgspec.to_builtins(fleet.agents[args.agent])
        print_json(plain) if args.json else print(yaml.safe_dump(plain, sort_keys=False).rstrip())
        return 0
    slots = place(fleet, hosts, {}) if hosts else {}
    if args.json:
        print_json({"fleet": fleet, "placement": slots})
        return 0
    rows = [
        [name, agent.mode, ", ".join(slot.host for slot in slots.get(name, ())) or ", ".join(agent.on_host()),
         ", ".join(f"{label} {port}" for label, port in agent.ports.items()),
         ", ".join(need.agent for need in agent.need_list())]
        for name, agent in fleet.agents.items()
    ]  # fmt: skip
    console().print(table(["agent", "mode", "hosts", "ports", "needs"], rows))
    return 0


def _graph(args: argparse.Namespace) -> int:
    fleet, _, _ = _read(args)
    waves, cycles = graph.waves(fleet), graph.cycles(fleet)
    if args.json:
        print_json({"waves": waves, "cycles": cycles, "needs": graph.edges(fleet)})
        return 0
    for number, wave in enumerate(waves, 1):
        print(f"wave {number} ({len(wave)}): {', '.join(wave)}")
    for cycle in cycles:
        print(f"cycle, started together: {', '.join(cycle)}")
    return 0


def _import(args: argparse.Namespace) -> int:
    imported = importer.import_files(args.files, args.port_offset)
    if args.json:
        agents = [
            {"name": a.name, "host": a.host, "group": a.group, "port": a.port, "health_port": a.health_port,
             "needs": a.needs, "required": a.required, "script": a.script, "config": a.config}
            for a in imported.agents
        ]  # fmt: skip
        print_json({"hosts": imported.hosts, "agents": agents, "warnings": imported.warnings})
    for warning in () if args.json else imported.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    text = yaml.safe_dump(document.document(imported, args.name, args.keep_intervals), sort_keys=False, width=118)
    if args.output:
        args.output.write_text(text)
        print(f"{args.output}: {len({a.name for a in imported.agents})} agents, {len(imported.agents)} instances; "
              "say what runs them: `module` or `command`, and `code`, under `defaults`", file=sys.stderr)  # fmt: skip
    elif not args.json:
        print(text, end="")
    return 0


def _schema(args: argparse.Namespace) -> int:
    print(schema.reference() if args.reference else schema.json_schema(), end="")
    return 0
