"""Finding agents in start-up files that people already have, whatever shape their groups take.

Two dialects are known: a mapping `agent_groups` of groups of agents, and a top-level list of agents (`pc2_services`).
An agent is a mapping that has `script_path`; next to one, or below `agent_groups`, also one that lacks it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from outrider.fleet.source import Place, Source

KNOWN = "a mapping `agent_groups` of groups of agents, or a top-level list of agents that have `name` and `script_path`"
GROUPS = "agent_groups"
SETTINGS = "global_settings"
SCRIPT = "script_path"
# Keys that only hold a group's agents, so that the group is named by the key above.
HOLDERS = (GROUPS, "agents", "services", "members")
# Keys that an agent without a script may still be known by; a group has none of them with a plain value.
MARKS = ("port", "health_check_port", "dependencies", "required")
_COMMENTED_ITEM = re.compile(r"^\s*#[\s-]*(?:\{\s*)?name:\s*[\"']?([\w-]+)", re.MULTILINE)
_COMMENTED_KEY = re.compile(r"^\s*#\s*([\w-]+):\s*\n\s*#\s+script_path:", re.MULTILINE)


class Found(Struct, frozen=True):
    """An agent as its file has it: `body` is what stands below its name."""

    name: str
    group: str
    body: dict[Any, Any]
    place: Place


class Odd(Struct, frozen=True):
    """Something among agents that is none."""

    place: Place
    text: str


def agents_in(source: Source) -> Iterator[Found | Odd]:
    """Every agent of a file with its innermost group, and what stands among agents but is none."""
    data = source.data
    if isinstance(data, list):
        yield from _list(source.path.stem, data, (), False)
    elif isinstance(data, dict):
        for key, value in data.items():
            if key != SETTINGS:
                yield from _below(str(key), value, (key,), key == GROUPS)


def _below(group: str, value: Any, place: Place, sure: bool) -> Iterator[Found | Odd]:
    """Agents below `value`. `sure`: that there are agents here is known, so what has no script is one too."""
    if isinstance(value, list):
        yield from _list(group, value, place, sure)
    elif isinstance(value, dict):
        yield from _mapping(group, value, place, sure)


def _mapping(group: str, value: dict[Any, Any], place: Place, sure: bool) -> Iterator[Found | Odd]:
    agents_here = any(_is_agent(item) for item in value.values())
    for key, item in value.items():
        at = (*place, key)
        if _is_agent(item) or ((sure or agents_here) and _may_be_agent(item)):
            yield Found(str(item.get("name") or key), group, item, at)
        elif isinstance(item, dict | list):
            yield from _below(group if key in HOLDERS else str(key), item, at, sure)
        elif agents_here:
            yield Odd(at, f"`{key}` among agents is none: found {_shown(item)}; not imported")


def _list(group: str, value: list[Any], place: Place, sure: bool) -> Iterator[Found | Odd]:
    agents_here = any(_is_agent(item) and item.get("name") for item in value)
    for index, item in enumerate(value):
        at = (*place, index)
        if not isinstance(item, dict):
            if sure or agents_here:
                yield Odd(at, f"found {_shown(item)} among agents; not imported")
        elif item.get("name") and (_is_agent(item) or ((sure or agents_here) and _may_be_agent(item))):
            yield Found(str(item["name"]), group, item, at)
        elif _is_agent(item):
            yield Odd((*at, SCRIPT), "an agent without `name`; not imported")
        else:
            # A list of groups: each is a mapping with a name of its own and its agents below.
            yield from _mapping(str(item.get("name") or group), item, at, sure)


def _is_agent(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get(SCRIPT), str)


def _may_be_agent(item: Any) -> bool:
    return isinstance(item, dict) and any(mark in item and not isinstance(item[mark], dict) for mark in MARKS)


def commented_out(text: str) -> list[str]:
    """Names of agents that stand in comments."""
    return list(dict.fromkeys([*_COMMENTED_ITEM.findall(text), *_COMMENTED_KEY.findall(text)]))


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)
