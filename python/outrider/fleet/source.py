"""Reading YAML so that every value knows its line: what error messages point at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from outrider.errors import FleetError

Place = tuple[str | int, ...]
MAX_NODES = 2_000_000  # aliases of aliases unfold to more than any fleet has


class Source:
    """A YAML file as plain values (`data`), and where each of them stands."""

    def __init__(self, path: Path, text: str | None = None) -> None:
        """Read `path`. Raises FleetError: unreadable, not YAML, empty, or keys given twice."""
        self.path = path
        self.problems: list[str] = []
        self._lines: dict[Place, int] = {}
        self._nodes = 0
        try:
            root = yaml.compose(path.read_text() if text is None else text, Loader=yaml.SafeLoader)
        except OSError as error:
            raise FleetError([f"{path}: {error.strerror}"]) from error
        except UnicodeDecodeError as error:
            raise FleetError([f"{path}: not UTF-8 text: {error.reason} at byte {error.start}"]) from error
        except yaml.YAMLError as error:
            raise FleetError([f"{path}{_mark(error)}: not YAML: {_what(error)}"]) from error
        if root is None:
            raise FleetError([f"{path}:1: the file is empty, expected a mapping with `fleet` and `groups`"])
        self._builder = yaml.SafeLoader("")
        self.data = self._value(root, ())

    def line(self, place: Place) -> int:
        """Line of a value, or of the nearest one around it."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 1)

    def at(self, place: Place, text: str) -> str:
        """One line of a report about the value at `place`."""
        dotted = ".".join(str(part) for part in place)
        return f"{self.path}:{self.line(place)}: " + (f"{dotted}: " if dotted else "") + text

    def _value(self, node: Node, place: Place) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise FleetError([f"{self.path}: more than {MAX_NODES} values: aliases that unfold without end?"])
        self._lines.setdefault(place, node.start_mark.line + 1)
        if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
            raise FleetError([f"{self.path}:{node.start_mark.line + 1}: the tag {node.tag} is not allowed here"])
        if isinstance(node, MappingNode):
            return self._mapping(node, place)
        if isinstance(node, SequenceNode):
            return [self._value(item, (*place, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _mapping(self, node: MappingNode, place: Place) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        lines: dict[Any, int] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node, place)
            line = key_node.start_mark.line + 1
            if key in found:
                self.problems.append(
                    f"{self.path}:{line}: {'.'.join(map(str, (*place, key)))}: given twice, first in line {lines[key]}"
                )
                continue
            lines[key] = line
            self._lines[(*place, key)] = line
            found[key] = self._value(value_node, (*place, key))
        return found

    def _scalar(self, node: Node, place: Place) -> Any:
        if not isinstance(node, ScalarNode):
            raise FleetError([f"{self.path}:{node.start_mark.line + 1}: a key must be text, not a mapping or a list"])
        try:
            return self._builder.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            line = node.start_mark.line + 1
            raise FleetError([f"{self.path}:{line}: {node.value!r} cannot be read: {error}"]) from error


def _mark(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


def _what(error: yaml.YAMLError) -> str:
    return " ".join(part for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part) or str(
        error
    )
