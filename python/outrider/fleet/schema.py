"""The fleet file's JSON Schema and reference page, both made from the types of spec.py."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec

from outrider.fleet.spec import Agent, Code, Need, OnHost, Probe, Resources, Restart

PAGES = (Agent, Code, Probe, Need, Resources, Restart, OnHost)

HEAD = """# The fleet file

Made from the types in `python/outrider/fleet/spec.py` by `outrider fleet schema --reference`; do not edit.

A fleet file has `fleet` (its name), `defaults` (any key of an agent) and `groups`. A group has `defaults` and `agents`.
Defaults are merged from fleet to group to agent: `environment`, `secrets`, `config`, `ports`, `resources`, `restart`
and `labels` key by key, everything else whole. Editors take the schema from `docs/reference/fleet.schema.json`:

    # yaml-language-server: $schema=fleet.schema.json
"""


def json_schema() -> str:
    """JSON Schema (2020-12) of a whole fleet file."""
    (agent,), parts = msgspec.json.schema_components([Agent], ref_template="#/$defs/{name}")
    level = {"defaults": agent, "agents": {"type": "object", "additionalProperties": agent}}
    group = {"type": "object", "additionalProperties": False, "properties": level}
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Outrider fleet file",
        "type": "object",
        "required": ["fleet", "groups"],
        "additionalProperties": False,
        "properties": {
            "fleet": {"type": "string"},
            "defaults": agent,
            "groups": {"type": "object", "additionalProperties": group},
        },
        "$defs": parts,
    }
    return json.dumps(schema, indent=2) + "\n"


def reference() -> str:
    """The reference page: a table for each type."""
    return HEAD + "".join(_page(kind) for kind in PAGES)


def _page(kind: type[msgspec.Struct]) -> str:
    first, *lines = inspect.getdoc(kind).splitlines()  # type: ignore[union-attr]
    meaning = dict(line.split(": ", 1) for line in lines if ": " in line)
    rows = []
    for field in msgspec.structs.fields(kind):
        default = (
            field.default_factory()
            if field.default is msgspec.NODEFAULT and callable(field.default_factory)
            else field.default
        )
        shown = "required" if field.required else _plain(default)
        rows.append(f"| `{field.encode_name}` | {_type(field.type)} | {shown} | {meaning.get(field.encode_name, '')} |")
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
    names = {
        "StrType": "text",
        "IntType": "whole number",
        "FloatType": "number",
        "BoolType": "true or false",
        "AnyType": "anything",
    }
    return names.get(type(info).__name__, "nothing")
