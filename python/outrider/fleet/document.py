"""From imported agents to a fleet file that people like to read: what is common stands once, in the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from outrider.fleet.importer import Imported, ImportedAgent
from outrider.fleet.settings import Settings

SHORT = {"main", "health", "cpu", "memory_mib", "threads", "agent", "required", "path", "tier"}
SHARED = ("hosts", "environment", "resources", "probes")
Doc = dict[str, Any]


def document(imported: Imported, name: str, keep_intervals: bool = False) -> Doc:
    """The fleet file of what was imported: groups as they were, one name on several hosts as one agent.

    An agent of one host is a singleton, since nothing says that two of it may run; its name on several hosts says so.
    """
    by_name: dict[str, list[ImportedAgent]] = {}
    for agent in imported.agents:
        by_name.setdefault(agent.name, []).append(agent)
    # A need of an agent that the files call not required is one that others live without.
    kinds = {name: all(agent.required for agent in agents) for name, agents in by_name.items()}
    groups: dict[str, Doc] = {}
    for agents in by_name.values():
        group = groups.setdefault(agents[0].group, {"defaults": {"tier": agents[0].group}, "agents": {}})
        group["agents"][agents[0].name] = _entry(agents, kinds, imported.settings, keep_intervals)
    for group in groups.values():
        _lift(group["defaults"], list(group["agents"].values()))
    defaults: Doc = {"mode": "singleton"}
    _lift_variables(defaults, list(groups.values()))
    return {"fleet": name, "defaults": defaults, "groups": groups}


def to_yaml(made: Doc) -> str:
    """A fleet file as text."""
    return yaml.dump(made, Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)


def _entry(
    agents: Sequence[ImportedAgent], kinds: Mapping[str, bool], settings: Mapping[str, Settings], keep_intervals: bool
) -> Doc:
    first, common = agents[0], settings[agents[0].host]
    entry: Doc = {"description": f"was {first.script}"} if first.script else {}
    variables = {**common.environment, **first.environment}
    if len(agents) == 1:
        entry |= {"hosts": [first.host], "ports": _ports(first), "config": first.config}
        entry["needs"] = _needs(first, kinds)
    else:
        entry |= {"mode": "replicated", "ports": _ports(first)}
        entry["hosts"] = {agent.host: _there(agent, first, kinds, settings) for agent in agents}
    entry["environment"] = variables
    entry["resources"] = _resources([settings[agent.host] for agent in agents])
    if keep_intervals and common.interval_s:
        entry["probes"] = [_probe(first, common)]
    return {key: value for key, value in entry.items() if value or key == "hosts"}


def _there(
    agent: ImportedAgent, first: ImportedAgent, kinds: Mapping[str, bool], settings: Mapping[str, Settings]
) -> Doc:
    """What differs for the instance on one of several hosts; `first` is what the agent's own keys were taken from."""
    ports, usual = _ports(agent), _ports(first)
    own, common = ({**settings[one.host].environment, **one.environment} for one in (agent, first))
    there = {
        "ports": {key: port for key, port in ports.items() if usual.get(key) != port},
        "needs": _needs(agent, kinds),
        "config": agent.config,
        "environment": {key: value for key, value in own.items() if common.get(key) != value},
    }
    return {key: value for key, value in there.items() if value or key == "needs"}


def _resources(settings: Sequence[Settings]) -> Doc:
    """The largest of what its hosts allow, so that no instance gets less than it had."""
    found = {}
    for key in ("cpu", "memory_mib", "threads"):
        given = [getattr(one, key) for one in settings if getattr(one, key) is not None]
        if given:
            found[key] = max(given)
    return found


def _probe(agent: ImportedAgent, settings: Settings) -> Doc:
    probe: Doc = {"type": "http" if agent.health_port else "tcp", "interval_s": settings.interval_s}
    probe |= {"timeout_s": settings.timeout_s, "failures": settings.failures}
    return {key: value for key, value in probe.items() if value is not None}


def _ports(agent: ImportedAgent) -> Doc:
    return {"main": agent.port or "auto", **({"health": agent.health_port} if agent.health_port else {})}


def _needs(agent: ImportedAgent, kinds: Mapping[str, bool]) -> list[Any]:
    """Needs among the imported; what is in none of the files was reported and is left out."""
    known = [need for need in agent.needs if need in kinds]
    return [need if kinds[need] else {"agent": need, "required": False} for need in known]


def _lift(defaults: Doc, agents: list[Doc]) -> None:
    """Move what agents of a group have in common to its defaults; whoever differs must say so in full."""
    for key in SHARED:
        values = [agent.get(key) for agent in agents]
        common = max(values, key=values.count, default=None)
        if common and values.count(common) > 1 and all(_overrides(value, common) for value in values):
            defaults[key] = common
            for agent in agents:
                if agent[key] == common:
                    del agent[key]


def _overrides(value: Any, common: Any) -> bool:
    """True if `value`, merged over `common`, is still `value`."""
    if isinstance(value, dict) and isinstance(common, dict):
        return value.keys() >= common.keys()
    return value is not None


def _lift_variables(defaults: Doc, groups: list[Doc]) -> None:
    """Move variables that every agent has with one value to the fleet's defaults: they are merged by key."""
    holders = [level for group in groups for level in _holders(group)]
    first = holders[0].get("environment", {})
    shared = {k: v for k, v in first.items() if all(holder.get("environment", {}).get(k) == v for holder in holders)}
    if shared:
        defaults["environment"] = shared
    for holder in holders:
        left = {key: value for key, value in holder.get("environment", {}).items() if key not in shared}
        holder.pop("environment", None)
        if left:
            holder["environment"] = left


def _holders(group: Doc) -> list[Doc]:
    """Levels of a group that say something about variables, so that each of its agents is covered by one."""
    agents = list(group["agents"].values())
    if "environment" in group["defaults"]:
        return [group["defaults"], *(agent for agent in agents if "environment" in agent)]
    return agents


class _Dumper(yaml.SafeDumper):
    """Short mappings and lists of names on one line, no anchors, lists indented below their key."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _mapping_node(dumper: yaml.SafeDumper, data: Doc) -> yaml.MappingNode:
    flow = bool(data) and data.keys() <= SHORT and "tier" not in data
    return dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=flow)


def _list_node(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.SequenceNode:
    flow = all(isinstance(item, str | int) or (isinstance(item, dict) and item.keys() <= SHORT) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


_Dumper.add_representer(dict, _mapping_node)
_Dumper.add_representer(list, _list_node)
