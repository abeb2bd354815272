"""One agent calling another: found in the catalogue, balanced, broken when ill, bounded by a deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outrider.calls.agent import Agent
    from outrider.calls.client import Client
    from outrider.calls.settings import Settings

__all__ = ["Agent", "Client", "Settings"]


def __getattr__(name: str) -> Any:
    # Lazy: who only serves does not pay for calling, and the shim for neither.
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(f"outrider.calls.{name.lower()}"), name)
    raise AttributeError(name)
