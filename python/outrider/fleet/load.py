"""From a fleet file to a Fleet, or to one report of everything that is wrong with it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from outrider.errors import FleetError
from outrider.fleet import placement
from outrider.fleet.check import check
from outrider.fleet.effective import agent_on, default_probes, probe_port
from outrider.fleet.source import Place, Source
from outrider.fleet.spec import Agent, Fleet, Host

# These mappings are merged key by key over the levels of defaults; everything else is replaced whole.
MERGED = ("environment", "secrets", "config", "ports", "resources", "restart", "labels")
TOP_KEYS = ("fleet", "defaults", "groups")
NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$")


def load_fleet(path: Path, hosts: Sequence[Host] | None = None) -> Fleet:
    """Read and validate a fleet file; with `hosts` also that every agent can be placed.

    Raises FleetError with every problem found, each with file and line.
    """
    source = Source(path)
    problems = [*source.problems, *_shape(source)]
    merged: dict[str, tuple[dict[str, Any], Place]] = {}
    if isinstance(source.data, dict):
        problems += _merge_all(source, merged)
    if not problems and not merged:
        problems.append(source.at((), "the fleet has no agents"))
    if problems:
        raise FleetError(problems)
    agents = {name: msgspec.convert(raw, Agent) for name, (raw, _) in merged.items()}
    fleet = Fleet(str(source.data["fleet"]), agents, _groups(source.data))
    places = {name: place for name, (_, place) in merged.items()}
    problems = [problem for name in agents for problem in _agent_problems(source, fleet, name, places[name])]
    problems += _name_collisions(source, fleet, places)
    if hosts is not None:
        problems += _host_problems(source, fleet, hosts, places)
    if problems:
        raise FleetError(problems)
    if hosts is not None:
        placement.place(fleet, hosts, {})
    return fleet


def _shape(source: Source) -> Iterator[str]:
    data = source.data
    if not isinstance(data, dict):
        yield source.at((), f"found {type(data).__name__}, allowed: a mapping of {', '.join(TOP_KEYS)}")
        return
    for key in data:
        if key not in TOP_KEYS:
            yield source.at((key,), f"unknown key `{key}`; {_nearest(str(key), TOP_KEYS)}")
    name = data.get("fleet")
    if not isinstance(name, str) or not NAME.match(name):
        yield source.at(("fleet",), f"found {name!r}, allowed: the fleet's name, letters, digits and dashes")
    if not isinstance(data.get("groups"), dict):
        yield source.at(("groups",), "allowed: a mapping of group name to `defaults` and `agents`; it must be there")


def _merge_all(source: Source, merged: dict[str, tuple[dict[str, Any], Place]]) -> Iterator[str]:
    """Put defaults and agents together in `merged`; yield what is wrong with any of them as written."""
    data = source.data
    defaults = data.get("defaults") or {}
    yield from check(source, defaults, Agent, ("defaults",))
    groups = data.get("groups")
    for group, body in (groups if isinstance(groups, dict) else {}).items():
        place: Place = ("groups", group)
        if not isinstance(body, dict):
            yield source.at(place, "allowed: a mapping with `defaults` and `agents`")
            continue
        for key in body.keys() - {"defaults", "agents"}:
            yield source.at((*place, key), f"unknown key `{key}`; {_nearest(str(key), ('defaults', 'agents'))}")
        group_defaults = body.get("defaults") or {}
        yield from check(source, group_defaults, Agent, (*place, "defaults"))
        agents = body.get("agents") or {}
        if not isinstance(agents, dict):
            yield source.at((*place, "agents"), "allowed: a mapping of agent name to its description")
            continue
        for name, raw in agents.items():
            at = (*place, "agents", name)
            yield from check(source, raw or {}, Agent, at)
            if not isinstance(name, str) or not NAME.match(name):
                yield source.at(at, f"`{name}` is no agent name: letters, digits, - and _, at most 63")
            elif name in merged:
                yield source.at(at, f"agent {name} is already in line {source.line(merged[name][1])}")
            else:
                levels = [level for level in (defaults, group_defaults, raw or {}) if isinstance(level, dict)]
                merged[name] = (merge(levels), at)


def merge(levels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Defaults and the agent's own keys as one mapping; later levels win."""
    result: dict[str, Any] = {}
    for level in levels:
        for key, value in level.items():
            if key in MERGED and isinstance(value, dict) and isinstance(result.get(key), dict):
                result[key] = {**result[key], **value}
            else:
                result[key] = value
        # A command of one's own replaces an inherited module, and the other way round.
        for key, other in (("command", "module"), ("module", "command")):
            if key in level and other not in level:
                result.pop(other, None)
    return result


def _groups(data: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(body.get("agents") or ()) for name, body in data["groups"].items()}


def _agent_problems(source: Source, fleet: Fleet, name: str, place: Place) -> Iterator[str]:
    agent = fleet.agents[name]
    if (agent.command is None) == (agent.module is None):
        yield source.at(place, "needs exactly one of `command` and `module`")
    if agent.code is not None:
        yield from _code_problems(source, agent, place)
    for entry in agent.on_host() or ("",):
        for need in agent_on(agent, entry).need_list():
            if need.agent not in fleet.agents:
                near = _nearest(need.agent, fleet.agents)
                yield source.at((*place, "needs"), f"needs `{need.agent}`, which no agent is called; {near}")
    if agent.mode == "singleton" and agent.count is not None:
        yield source.at((*place, "count"), "a singleton has no count; its warm copies are `standbys`")
    if agent.mode == "replicated" and agent.standbys:
        yield source.at((*place, "standbys"), "only a singleton has standbys; more replicas are `count`")
    for index, probe in enumerate(agent.probes or default_probes(agent)):
        port = probe_port(agent, probe)
        if probe.type in ("http", "tcp", "zmq") and port not in agent.ports:
            allowed = ", ".join(agent.ports) or "none is declared"
            yield source.at((*place, "probes", index), f"asks the port `{port}`, allowed: {allowed}")
        if probe.type == "command" and not probe.command:
            yield source.at((*place, "probes", index), "a command probe needs `command`")


def _code_problems(source: Source, agent: Agent, place: Place) -> Iterator[str]:
    assert agent.code is not None
    given = [key for key in ("path", "wheel", "git") if getattr(agent.code, key)]
    if len(given) != 1:
        yield source.at((*place, "code"), f"found {given or 'none'}, allowed: exactly one of path, wheel and git")
    elif agent.code.git and not agent.code.ref:
        yield source.at((*place, "code", "git"), "git needs `ref`: a commit, tag or branch")
    elif not agent.code.git:
        folder = source.path.parent / str(getattr(agent.code, given[0]))
        if not (folder.is_dir() if given == ["path"] else folder.is_file()):
            yield source.at((*place, "code", given[0]), f"{folder} is not there")


def _name_collisions(source: Source, fleet: Fleet, places: Mapping[str, Place]) -> Iterator[str]:
    """Consul names are DNS labels: `_` becomes `-` there, and case does not count."""
    seen: dict[str, str] = {}
    for name in fleet.agents:
        service = name.replace("_", "-").lower()
        if service in seen:
            yield source.at(places[name], f"{name} and {seen[service]} would be one service in Consul: rename one")
        seen.setdefault(service, name)


def _host_problems(source: Source, fleet: Fleet, hosts: Sequence[Host], places: Mapping[str, Place]) -> Iterator[str]:
    known = sorted({host.name for host in hosts} | {group for host in hosts for group in host.groups})
    taken: dict[tuple[str, int], str] = {}
    for name, agent in fleet.agents.items():
        for entry in agent.on_host():
            there = [host for host in hosts if host.answers_to(entry)]
            if not there:
                near = _nearest(entry, known)
                yield source.at((*places[name], "hosts"), f"no host or group `{entry}` in the inventory; {near}")
            if len(there) == 1:
                for label, port in agent_on(agent, entry).ports.items():
                    if isinstance(port, int):
                        key, user = (there[0].name, port), f"{name}.ports.{label}"
                        if key in taken:
                            text = f"port {port} on {there[0].name} is already that of {taken[key]}"
                            yield source.at((*places[name], "ports", label), text)
                        taken.setdefault(key, user)


def _nearest(name: str, allowed: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, allowed, 1, cutoff=0.5)
    if near:
        return f"did you mean `{near[0]}`?"
    names = sorted(allowed)
    return "allowed: " + ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
