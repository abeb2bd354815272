"""From a fleet file to a Fleet, or to one report of everything that is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from outrider.errors import FleetError
from outrider.fleet import placement, rules
from outrider.fleet.check import check
from outrider.fleet.rules import Written, nearest
from outrider.fleet.source import Place, Source
from outrider.fleet.spec import Agent, Fleet, Host

# These mappings are merged key by key over the levels of defaults; everything else is replaced whole.
MERGED = ("environment", "secrets", "config", "ports", "resources", "restart", "labels")
TOP_KEYS = ("fleet", "defaults", "groups")
GROUP_KEYS = ("defaults", "agents")
NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\Z")
Raw = dict[str, tuple[dict[str, Any], Place]]


def load_fleet(path: Path, hosts: Sequence[Host] | None = None, *, local_secrets: bool = False) -> Fleet:
    """Read and validate a fleet file.

    With `hosts` also that every agent can be placed; with `local_secrets` that the files of secrets can be read here.
    Raises FleetError with every problem found, each with file and line.
    """
    source = Source(path)
    raw: Raw = {}
    problems = [*source.problems, *_shape(source), *_collect(source, raw)]
    if not problems and not raw:
        problems.append(source.at((), "the fleet has no agents"))
    if problems:
        raise FleetError(problems)
    agents = {name: msgspec.convert(plain, Agent) for name, (plain, _) in raw.items()}
    fleet = Fleet(str(source.data["fleet"]), agents, _groups(source.data))
    written = Written(source, fleet, {name: place for name, (_, place) in raw.items()})
    problems = _meaning(written, hosts, local_secrets)
    if problems:
        raise FleetError(problems)
    return fleet


def _meaning(written: Written, hosts: Sequence[Host] | None, local_secrets: bool) -> list[str]:
    """Problems of a fleet whose shape is right."""
    problems = [problem for name in written.fleet.agents for problem in rules.agent_problems(written, name)]
    problems += rules.name_problems(written)
    if local_secrets:
        problems += rules.secret_problems(written)
    if hosts is not None:
        told = list(rules.host_problems(written, hosts))
        problems += [problem for _, problem in told]
        # Whoever has an unknown host or a taken port has been told; the rest is placed without them.
        rest = {name: agent for name, agent in written.fleet.agents.items() if name not in dict(told)}
        _, unplaced = placement.solve(Fleet(written.fleet.name, rest), hosts, {})
        problems += [
            written.at(item.agent, (), f"{item.instance} cannot be placed: {item.reason}") for item in unplaced
        ]
    return problems


def _shape(source: Source) -> Iterator[str]:
    data = source.data
    if not isinstance(data, dict):
        yield source.at((), f"found {type(data).__name__}, allowed: a mapping of {', '.join(TOP_KEYS)}")
        return
    yield from _unknown_keys(source, data, TOP_KEYS, ())
    name = data.get("fleet")
    if not isinstance(name, str) or not NAME.match(name):
        found = f"found {name!r}" if "fleet" in data else "`fleet` is missing"
        yield source.at(("fleet",), f"{found}, allowed: the fleet's name, letters, digits and dashes")
    if "groups" not in data:
        yield source.at((), "`groups` is missing: a mapping of group name to `defaults` and `agents`")


def _unknown_keys(source: Source, data: Mapping[Any, Any], allowed: Sequence[str], place: Place) -> Iterator[str]:
    for key in data:
        if key not in allowed:
            yield source.at((*place, key), f"unknown key `{key}`; {nearest(str(key), allowed)}")


def _mapping(source: Source, value: Any, place: Place, of: str, problems: list[str]) -> dict[Any, Any]:
    """`value` if it is a mapping, an empty one if it is left out; anything else is a problem."""
    if isinstance(value, dict):
        return value
    if value is not None:
        problems.append(source.at(place, f"found {type(value).__name__}, allowed: a mapping of {of}"))
    return {}


def _collect(source: Source, raw: Raw) -> list[str]:
    """Put defaults and agents together in `raw`; return what is wrong with any of them as written."""
    if not isinstance(source.data, dict):
        return []
    problems: list[str] = []
    defaults = _mapping(source, source.data.get("defaults"), ("defaults",), "an agent's keys", problems)
    problems += check(source, defaults, Agent, ("defaults",))
    groups = _mapping(source, source.data.get("groups"), ("groups",), "group name to agents", problems)
    for group, given in groups.items():
        place: Place = ("groups", group)
        if not isinstance(group, str):
            problems.append(source.at(place, f"found the name {group!r}, allowed: text (write it in quotes)"))
        body = _mapping(source, given, place, "`defaults` and `agents`", problems)
        problems += _unknown_keys(source, body, GROUP_KEYS, place)
        at = (*place, "defaults")
        shared = _mapping(source, body.get("defaults"), at, "an agent's keys", problems)
        problems += check(source, shared, Agent, at)
        at = (*place, "agents")
        for name, own in _mapping(source, body.get("agents"), at, "agent name to its keys", problems).items():
            problems += _agent(source, raw, (*at, name), (defaults, shared, {} if own is None else own))
    return problems


def _agent(source: Source, raw: Raw, place: Place, levels: Sequence[Any]) -> Iterator[str]:
    name, own = place[-1], levels[-1]
    yield from check(source, own, Agent, place)
    if not isinstance(name, str) or not NAME.match(name):
        yield source.at(place, f"`{name}` is no agent name: letters, digits, - and _ between them, at most 63")
    elif name in raw:
        yield source.at(place, f"agent {name} is already in line {source.line(raw[name][1])}")
    elif isinstance(own, dict):
        raw[name] = (merge(levels), place)


def merge(levels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Defaults and the agent's own keys as one mapping; later levels win."""
    result: dict[str, Any] = {}
    for level in levels:
        for key, value in level.items():
            if key in MERGED and isinstance(value, dict) and isinstance(result.get(key), dict):
                result[key] = {**result[key], **value}
            else:
                result[key] = value
        # A command of one's own replaces an inherited module and its arguments, and the other way round.
        for key, others in (("command", ("module", "args")), ("module", ("command",))):
            if level.get(key) is not None:
                for other in others:
                    if other not in level:
                        result.pop(other, None)
    return result


def _groups(data: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    groups = data["groups"] or {}
    return {name: tuple((body or {}).get("agents") or ()) for name, body in groups.items()}
