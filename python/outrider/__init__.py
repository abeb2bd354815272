"""Outrider: one self-healing fleet of AI agents on a handful of Linux hosts.

`lookup(name)` answers from the host's catalogue in microseconds; `watch(name)` yields every change of that answer.
`call(agent, method, arguments)` calls another agent, and survives what can be survived; `Agent` serves such calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outrider.errors import CallError, CallRefused, OutriderError

if TYPE_CHECKING:
    from outrider.calls.agent import Agent
    from outrider.calls.api import acall, call
    from outrider.discovery.api import alookup, awatch, lookup, watch

__all__ = [
    "Agent",
    "CallError",
    "CallRefused",
    "OutriderError",
    "acall",
    "alookup",
    "awatch",
    "call",
    "lookup",
    "watch",
]


def __getattr__(name: str) -> Any:
    # Lazy, so that an agent that only looks up does not pay for what it does not use.
    if name in ("lookup", "watch", "alookup", "awatch"):
        from outrider.discovery import api

        return getattr(api, name)
    if name in ("call", "acall"):
        from outrider.calls import api as calls

        return getattr(calls, name)
    if name == "Agent":
        from outrider.calls.agent import Agent

        return Agent
    raise AttributeError(name)
