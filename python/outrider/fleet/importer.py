"""Turning start-up files that people already have into a fleet file.

Two dialects are known: a mapping `agent_groups` of groups of agents, and a top-level list of agents (`pc2_services`).
What such files hold in the wild is tolerated and reported; what cannot be read is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from outrider.errors import FleetError
from outrider.fleet.source import Source

# Keys that become something of ours; whatever else an agent has is kept under `config` and reported.
READ = ("name", "script_path", "port", "health_check_port", "dependencies", "required", "config", "host")
COMMENTED = re.compile(r"^\s*#\s*-?\s*(?:\{\s*)?name:\s*([A-Za-z0-9_-]+)", re.MULTILINE)
COMMENTED_KEY = re.compile(r"^\s*#\s*([A-Z][A-Za-z0-9]+):\s*\n\s*#\s+script_path:", re.MULTILINE)
OFFSET = re.compile(r"^\$\{PORT_OFFSET(?::-\d+)?\}\s*\+\s*(\d+)$")
KNOWN = "a mapping `agent_groups` of groups of agents, or a top-level list of agents that have `name` and `script_path`"


class ImportedAgent(Struct, frozen=True, omit_defaults=True):
    """One agent of one file, that is one instance. Ports are None where the file has none."""

    name: str
    host: str
    group: str
    script: str
    port: int | None
    health_port: int | None
    needs: tuple[str, ...]
    required: bool
    config: dict[str, Any] = field(default_factory=dict)


class Imported(Struct, frozen=True):
    """What was read: hosts, agents per host, and everything a person should know about it."""

    hosts: tuple[str, ...]
    agents: tuple[ImportedAgent, ...]
    warnings: tuple[str, ...]
    settings: dict[str, dict[str, Any]]


def import_files(paths: Sequence[Path], port_offset: int = 0) -> Imported:
    """Read start-up files, one host each, named by the file's first word. Raises FleetError naming what it saw."""
    hosts: list[str] = []
    agents: list[ImportedAgent] = []
    warnings: list[str] = []
    settings: dict[str, dict[str, Any]] = {}
    for path in paths:
        source = Source(path)
        if not isinstance(source.data, dict):
            raise FleetError([source.at((), f"found {type(source.data).__name__}; known: {KNOWN}")])
        host = re.split(r"[_.-]", path.name)[0]
        found = list(_agents(source, host, port_offset, warnings))
        if not found:
            saw = ", ".join(f"`{key}`" for key in source.data) or "nothing"
            raise FleetError([source.at((), f"no agents found; its top-level keys are {saw}; known: {KNOWN}")])
        hosts.append(host)
        agents += found
        settings[host] = source.data.get("global_settings") or {}
        warnings += source.problems
        warnings += _other_warnings(source, path)
    return Imported(tuple(hosts), tuple(agents), tuple(warnings), settings)


def _agents(source: Source, host: str, offset: int, warnings: list[str]) -> Iterator[ImportedAgent]:
    seen: set[str] = set()
    for key, value in source.data.items():
        for group, name, body, place in _descend(key, value, (key,)):
            if name in seen:
                warnings.append(source.at(place, f"{name} is there twice; the first one counts"))
                continue
            seen.add(name)
            yield _agent(source, host, group, name, body, place, offset, warnings)


def _descend(group: str, value: Any, place: tuple[Any, ...]) -> Iterator[tuple[str, str, Mapping[str, Any], Any]]:
    """Every agent below `value`, however its groups are nested, with the name of its innermost group."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict) and "name" in item and "script_path" in item:
                yield group, str(item["name"]), item, (*place, index)
            elif isinstance(item, dict):
                yield from _descend(group, item, (*place, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict) and "script_path" in item:
                yield group, str(item.get("name", key)), item, (*place, key)
            elif isinstance(item, dict | list):
                yield from _descend(str(key), item, (*place, key))


def _agent(
    source: Source,
    host: str,
    group: str,
    name: str,
    body: Mapping[str, Any],
    place: Any,
    offset: int,
    warnings: list[str],
) -> ImportedAgent:
    unknown = {key: value for key, value in body.items() if key not in READ}
    for key in unknown:
        warnings.append(source.at((*place, key), f"{name}: `{key}` is not known here; kept under config"))
    needs = body.get("dependencies") or ()
    if isinstance(needs, str):
        needs = [part.strip() for part in needs.split(",") if part.strip()]
    return ImportedAgent(
        name=name,
        host=host,
        group=group,
        script=str(body.get("script_path") or ""),
        port=_port(source, place, "port", body, offset, warnings),
        health_port=_port(source, place, "health_check_port", body, offset, warnings),
        needs=tuple(str(need) for need in needs),
        required=bool(body.get("required", True)),
        config={**(body.get("config") or {}), **unknown},
    )


def _port(
    source: Source, place: Any, key: str, body: Mapping[str, Any], offset: int, warnings: list[str]
) -> int | None:
    """A number, a number as text, or `${PORT_OFFSET}+N`. Anything else is reported, and a port chosen at start."""
    value = body.get(key)
    if value is None:
        warnings.append(source.at(place, f"no `{key}`; one is chosen when it starts"))
        return None
    text = str(value).strip()
    matched = OFFSET.match(text)
    number = int(matched.group(1)) + offset if matched else int(text) if text.isdecimal() else 0
    if 0 < number < 65536:
        return number
    warnings.append(source.at((*place, key), f"{value!r} is no port; one is chosen when it starts"))
    return None


def _other_warnings(source: Source, path: Path) -> Iterator[str]:
    text = path.read_text()
    names = [*COMMENTED.findall(text), *COMMENTED_KEY.findall(text)]
    if names:
        yield f"{path}: commented out and not imported: {', '.join(names)}"
    health = (source.data.get("global_settings") or {}).get("health_checks")
    if health:
        yield source.at(
            ("global_settings", "health_checks"),
            f"{health} would find a hang only after a minute and more; not carried, the default is every 0.5 s "
            "(--keep-intervals carries it)",
        )
    read = {"global_settings"}
    for key, value in source.data.items():
        if key not in read and not list(_descend(key, value, (key,))):
            yield source.at((key,), f"`{key}` is not known here and is not imported")


def document(imported: Imported, name: str, keep_intervals: bool = False) -> dict[str, Any]:
    """The fleet file of what was imported: groups as they were, one name on several hosts as one agent."""
    by_name: dict[str, list[ImportedAgent]] = {}
    for agent in imported.agents:
        by_name.setdefault(agent.name, []).append(agent)
    optional = {agent.name for agent in imported.agents if not agent.required}
    groups: dict[str, dict[str, Any]] = {}
    for agents in by_name.values():
        group = groups.setdefault(agents[0].group, {"defaults": {"tier": agents[0].group}, "agents": {}})
        group["agents"][agents[0].name] = _entry(agents, optional, imported.settings, keep_intervals)
    return {"fleet": name, "groups": groups}


def _entry(
    agents: list[ImportedAgent], optional: set[str], settings: Mapping[str, Mapping[str, Any]], keep_intervals: bool
) -> dict[str, Any]:
    first = agents[0]
    entry: dict[str, Any] = {"description": f"was {first.script}"}
    if len(agents) == 1:
        entry |= {"hosts": [first.host], "mode": "singleton", "ports": _ports(first)}
        if first.config:
            entry["config"] = first.config
    else:
        entry["mode"] = "replicated"
        entry["hosts"] = {agent.host: _there(agent, optional) for agent in agents}
        entry["ports"] = _ports(first)
    needs = _needs(first.needs, optional)
    if needs and len(agents) == 1:
        entry["needs"] = needs
    limits = (settings.get(first.host) or {}).get("resource_limits") or {}
    resources = {
        "cpu": limits["cpu_percent"] / 100 if "cpu_percent" in limits else None,
        "memory_mib": limits.get("memory_mb"),
        "threads": limits.get("max_threads"),
    }
    if given := {key: value for key, value in resources.items() if value is not None}:
        entry["resources"] = given
    environment = (settings.get(first.host) or {}).get("environment") or {}
    # A value that refers to another variable meant the shell that started it, and PYTHONPATH the old layout.
    carried = {key: str(v) for key, v in environment.items() if "${" not in str(v) and key != "PYTHONPATH"}
    if carried:
        entry["environment"] = carried
    health = (settings.get(first.host) or {}).get("health_checks") or {}
    if keep_intervals and health:
        entry["probes"] = [
            {
                "type": "http",
                "interval_s": health.get("interval_seconds", 30),
                "timeout_s": health.get("timeout_seconds", 10),
                "failures": health.get("retries", 3),
            }
        ]
    return entry


def _there(agent: ImportedAgent, optional: set[str]) -> dict[str, Any]:
    there: dict[str, Any] = {"ports": _ports(agent), "needs": _needs(agent.needs, optional)}
    if agent.config:
        there["config"] = agent.config
    return there


def _ports(agent: ImportedAgent) -> dict[str, Any]:
    return {"main": agent.port or "auto", "health": agent.health_port or "auto"}


def _needs(needs: Sequence[str], optional: set[str]) -> list[Any]:
    return [{"agent": need, "required": False} if need in optional else need for need in needs]
