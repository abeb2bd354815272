"""`{port}`, `{ports.NAME}`, `{address}`, `{state}` and `{release}` in commands. Other braces stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from outrider.errors import HostError

_PLACEHOLDER = re.compile(r"\{(port|address|state|release|ports\.([A-Za-z0-9_-]+))\}")


def main_port(ports: Mapping[str, int]) -> int:
    """The port that callers use: `main`, or the first; 0 if there is none."""
    return ports.get("main", 0) or next(iter(ports.values()), 0)


def fill(words: Iterable[str], ports: Mapping[str, int], values: Mapping[str, str]) -> tuple[str, ...]:
    """Replace the placeholders. Raises HostError for a port that the agent does not have."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name == "port" or match[2]:
            port = ports.get(match[2]) if match[2] else main_port(ports)
            if not port:
                has = ", ".join(ports) or "none"
                raise HostError(f"{match[0]} in {match.string!r}: no such port", hint=f"the agent's ports: {has}")
            return str(port)
        return values.get(name, match[0])

    return tuple(_PLACEHOLDER.sub(value, word) for word in words)
