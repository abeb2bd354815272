"""Reading YAML so that every value knows its line: what error messages point at."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from outrider.errors import FleetError

Place = tuple[str | int, ...]
MAX_REPEATED = 200_000  # values reached again through an alias; aliases of aliases unfold without end
_PREFIX = "tag:yaml.org,2002:"
_COLLECTIONS = (f"{_PREFIX}map", f"{_PREFIX}seq")
_SCALARS = tuple(_PREFIX + kind for kind in ("null", "bool", "int", "float", "str", "timestamp", "merge"))
_UNREADABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError)


class Source:
    """A YAML file as plain values (`data`), and where each of them stands.

    Keys given twice do not stop the reading: they are in `problems`, and the first one counts.
    """

    def __init__(self, path: Path, text: str | None = None) -> None:
        """Read `path`, or `text` in its name. Raises FleetError: unreadable, not YAML, empty, or not plain values."""
        self.path = path
        self.problems: list[str] = []
        self.text = _read(path) if text is None else text
        self._marks: dict[Place, tuple[int, int]] = {}
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self._repeated = 0
        self._builder = yaml.SafeLoader("")
        try:
            # Not the C loader: it is faster, but brackets nested deeply enough kill the whole process.
            root = yaml.compose(self.text, Loader=yaml.SafeLoader)
            if root is None:
                raise FleetError([f"{path}:1: the file is empty, expected a mapping with `fleet` and `groups`"])
            self.data = self._value(root, ())
        except yaml.YAMLError as error:
            raise FleetError([f"{path}{_mark(error)}: not YAML: {_what(error)}"]) from error
        except RecursionError as error:
            raise FleetError([f"{path}: nested too deeply to be a fleet"]) from error

    def where(self, place: Place) -> tuple[int, int]:
        """Line and column, from 1, of the value at `place`, or of the nearest one around it."""
        while place and place not in self._marks:
            place = place[:-1]
        return self._marks.get(place, (1, 1))

    def line(self, place: Place) -> int:
        """Line of a value, or of the nearest one around it."""
        return self.where(place)[0]

    def at(self, place: Place, text: str) -> str:
        """One line of a report about the value at `place`."""
        dotted = ".".join(str(part) for part in place)
        return f"{self.path}:{self.line(place)}: " + (f"{dotted}: " if dotted else "") + text

    def _value(self, node: Node, place: Place) -> Any:
        self._marks.setdefault(place, (node.start_mark.line + 1, node.start_mark.column + 1))
        self._repeated += id(node) in self._seen
        if self._repeated > MAX_REPEATED:
            raise self._refused(node, f"aliases unfold to more than {MAX_REPEATED} values")
        self._seen.add(id(node))
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if node.tag not in _COLLECTIONS:
            raise self._refused(node, f"the tag {_short(node.tag)} is not allowed here")
        if id(node) in self._open:
            raise self._refused(node, "an alias inside the very value that it stands for")
        self._open.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, place)
            assert isinstance(node, SequenceNode)
            return [self._value(item, (*place, index)) for index, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: MappingNode, place: Place) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        inherited: dict[Any, Any] = {}
        lines: dict[Any, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                raise self._refused(key_node, "a key must be text, not a mapping or a list")
            key, line = self._scalar(key_node), key_node.start_mark.line + 1
            if key_node.tag == f"{_PREFIX}merge":
                inherited = {**self._merged(value_node, place), **inherited}
            elif key in lines:
                dotted = ".".join(map(str, (*place, key)))
                self.problems.append(f"{self.path}:{line}: {dotted}: given twice, first in line {lines[key]}")
            else:
                lines[key] = line
                self._marks[(*place, key)] = (line, key_node.start_mark.column + 1)
                found[key] = self._value(value_node, (*place, key))
        return {**inherited, **found}

    def _merged(self, node: Node, place: Place) -> dict[Any, Any]:
        """What `<<: *anchor`, or a list of anchors, brings in; the mapping's own keys win, and earlier anchors."""
        value = self._value(node, (*place, "<<"))
        parts = value if isinstance(value, list) else [value]
        merged: dict[Any, Any] = {}
        for part in parts:
            if not isinstance(part, dict):
                raise self._refused(node, "`<<` takes a mapping, or a list of mappings")
            merged = {**part, **merged}
        return merged

    def _scalar(self, node: ScalarNode) -> Any:
        if node.tag not in _SCALARS:
            raise self._refused(node, f"the tag {_short(node.tag)} is not allowed here")
        if node.tag in (f"{_PREFIX}timestamp", f"{_PREFIX}merge"):
            return node.value  # a date stays the text that it was written as
        try:
            value = self._builder.construct_object(node)
            if isinstance(value, str):
                value.encode()
        except _UNREADABLE as error:
            raise self._refused(node, f"{node.value!r} cannot be read as {_short(node.tag)}") from error
        if isinstance(value, float) and not math.isfinite(value):
            raise self._refused(node, f"found {node.value}, allowed: numbers that end")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise self._refused(node, "found a number of more than 64 bits; write it in quotes")
        return value

    def _refused(self, node: Node, text: str) -> FleetError:
        return FleetError([f"{self.path}:{node.start_mark.line + 1}: {text}"])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise FleetError([f"{path}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise FleetError([f"{path}: not UTF-8 text: {error.reason} at byte {error.start}"]) from error


def _short(tag: str) -> str:
    return tag.replace(_PREFIX, "!!")


def _mark(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


def _what(error: yaml.YAMLError) -> str:
    said = [part for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part]
    return " ".join(" ".join(said or [str(error)]).split())
