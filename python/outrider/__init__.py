"""Outrider: one self-healing fleet of AI agents on a handful of Linux hosts.

`lookup(name)` answers from the host's catalogue in microseconds; `watch(name)` yields every change of that answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outrider.errors import OutriderError

if TYPE_CHECKING:
    from outrider.discovery.api import alookup, awatch, lookup, watch

__all__ = ["OutriderError", "alookup", "awatch", "lookup", "watch"]


def __getattr__(name: str) -> Any:
    # Lazy, so that an agent that only looks up does not pay for what it does not use.
    if name in ("lookup", "watch", "alookup", "awatch"):
        from outrider.discovery import api

        return getattr(api, name)
    raise AttributeError(name)
