"""`outrider.call` and `outrider.acall`: the process's own client."""

from __future__ import annotations

from typing import Any

from outrider.calls.client import RAISE, default


def call(
    agent: str,
    method: str,
    arguments: Any = None,
    *,
    timeout: float | None = None,
    reply: Any = Any,
    idempotent: bool = False,
    fallback: Any = RAISE,
) -> Any:
    """Call `method` of `agent` and return what it returns: `Client.call` of this process's client."""
    return default().call(
        agent, method, arguments, timeout=timeout, reply=reply, idempotent=idempotent, fallback=fallback
    )


async def acall(
    agent: str,
    method: str,
    arguments: Any = None,
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - of the call with its retries, and sent along
    reply: Any = Any,
    idempotent: bool = False,
    fallback: Any = RAISE,
) -> Any:
    """`call` for coroutines."""
    return await default().acall(
        agent, method, arguments, timeout=timeout, reply=reply, idempotent=idempotent, fallback=fallback
    )
