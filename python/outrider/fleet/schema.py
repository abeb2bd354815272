"""The fleet file's JSON Schema and reference page, both made from the types of spec.py."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec

from outrider.fleet.spec import Agent, Code, Need, OnHost, Probe, Resources, Restart

PAGES = (Agent, Code, Probe, Need, Resources, Restart, OnHost)

HEAD = """# The fleet file

Made from the types in `python/outrider/fleet/spec.py` by `make docs`; do not edit.

    # yaml-language-server: $schema=fleet.schema.json
    fleet: lab
    defaults: {code: {path: agents}, environment: {LOG_LEVEL: INFO}}
    groups:
      core:
        defaults: {tier: core, hosts: [gpu1]}
        agents:
          Memory: {module: memory, mode: singleton, ports: {main: 7000, health: 8000}, state: true}
          Planner: {module: planner, ports: {main: auto}, needs: [Memory, {agent: Speech, required: false}]}
          Speech: {command: [./speech, --port, "{port}"], ports: {main: auto}, hosts: [gpu1, gpu2]}

| key | type | default | meaning |
| --- | --- | --- | --- |
| `fleet` | text | required | name of the fleet |
| `defaults` | mapping | none | any key of an agent, for all agents |
| `groups` | mapping | required | name of a group to its `defaults`, for its agents, and its `agents`, name to Agent |

Defaults are merged from fleet to group to agent: `environment`, `secrets`, `config`, `ports`, `resources`, `restart`
and `labels` key by key, everything else whole. An agent with a `command` drops an inherited `module`, and the other way
round. Names of agents are letters, digits, `-` and `_`, at most 63, and unique in the fleet, also in Consul, where `_`
becomes `-`. `outrider fleet validate` tells every problem at once, each with its line.
"""


def json_schema() -> str:
    """JSON Schema (2020-12) of a whole fleet file, with the meaning of each key for editors to show."""
    (agent,), parts = msgspec.json.schema_components([Agent], ref_template="#/$defs/{name}")
    for kind in PAGES:
        first, meaning = _doc(kind)
        parts[kind.__name__]["description"] = first
        for key, schema in parts[kind.__name__]["properties"].items():
            schema["description"] = meaning[key]
    # A name with nothing below it is an agent that takes everything from the defaults.
    named = {"type": "object", "additionalProperties": {"anyOf": [agent, {"type": "null"}]}}
    group = {"type": "object", "additionalProperties": False, "properties": {"defaults": agent, "agents": named}}
    whole: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Outrider fleet file",
        "type": "object",
        "required": ["fleet", "groups"],
        "additionalProperties": False,
        "properties": {
            "fleet": {"type": "string", "description": "name of the fleet"},
            "defaults": agent,
            "groups": {"type": "object", "additionalProperties": group},
        },
        "$defs": parts,
    }
    return json.dumps(whole, indent=2) + "\n"


def _doc(kind: type[msgspec.Struct]) -> tuple[str, dict[str, str]]:
    """First line of a type's docstring, and the meaning of each field; a line that is indented goes on with it."""
    first, *lines = (inspect.getdoc(kind) or "").splitlines()
    meaning: dict[str, str] = {}
    name = ""
    for line in lines:
        if line.startswith(" "):
            meaning[name] += f" {line.strip()}"
        elif ": " in line:
            name, text = line.split(": ", 1)
            meaning[name] = text
    return first, meaning


def reference() -> str:
    """The reference page: a table for each type."""
    return HEAD + "".join(_page(kind) for kind in PAGES)


def _page(kind: type[msgspec.Struct]) -> str:
    first, meaning = _doc(kind)
    rows = []
    for field in msgspec.structs.fields(kind):
        default = (
            field.default_factory()
            if field.default is msgspec.NODEFAULT and callable(field.default_factory)
            else field.default
        )
        shown = "required" if field.required else _plain(default)
        rows.append(f"| `{field.encode_name}` | {_type(field.type)} | {shown} | {meaning[field.encode_name]} |")
    return (
        f"\n## {kind.__name__}\n\n{first}\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + "\n"
    )


def _plain(value: Any) -> str:
    if isinstance(value, msgspec.Struct):
        return f"see {type(value).__name__}"
    return f"`{json.dumps(msgspec.to_builtins(value))}`" if value not in (None, {}, (), "") else "none"


def _type(kind: Any) -> str:
    info = msgspec.inspect.type_info(kind)
    return _name(info)


def _name(info: msgspec.inspect.Type) -> str:
    if isinstance(info, msgspec.inspect.UnionType):
        return " or ".join(_name(part) for part in info.types if not isinstance(part, msgspec.inspect.NoneType))
    if isinstance(info, msgspec.inspect.StructType):
        return str(info.cls.__name__)
    if isinstance(info, msgspec.inspect.LiteralType):
        return ", ".join(str(value) for value in info.values)
    if isinstance(info, msgspec.inspect.VarTupleType):
        return f"list of {_name(info.item_type)}"
    if isinstance(info, msgspec.inspect.DictType):
        return f"mapping to {_name(info.value_type)}"
    if isinstance(info, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        name = "whole number" if isinstance(info, msgspec.inspect.IntType) else "number"
        bounds = ((info.ge, "from"), (info.gt, "above"), (info.le, "to"))
        return " ".join([name, *(f"{word} {bound:g}" for bound, word in bounds if bound is not None)])
    names = {
        "StrType": "text",
        "BoolType": "true or false",
        "AnyType": "anything",
    }
    return names.get(type(info).__name__, "nothing")
