"""The same methods for callers that use Outrider's library, if the fleet file gives the agent a port `call`."""

from __future__ import annotations

import os

from wire import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import outrider
    from agent import Agent


def serve_calls(agent: Agent) -> outrider.Agent | None:
    """Serve them on a thread of their own. None if nobody asked for it. Raises outrider.HostError."""
    if "OUTRIDER_PORT_CALL" not in os.environ:
        return None
    import outrider

    served = outrider.Agent(concurrency=8, queue=32)
    served.method(_echo, name="echo", idempotent=True, quick=True)
    for name in ("work", "chain", "infer"):
        served.method(_method(agent, name), name=name, idempotent=True)
    served.start()
    return served


def _echo(**document: Any) -> dict[str, Any]:
    return document


def _method(agent: Agent, name: str) -> Callable[..., dict[str, Any]]:
    import outrider

    def method(**document: Any) -> dict[str, Any]:
        try:
            return agent.answer(name, document)
        except Refused as refused:
            raise outrider.CallRefused(refused.message, hint=refused.hint) from refused

    return method
