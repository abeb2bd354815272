"""What the library itself serves beside an agent's methods.

No calls of the agent: not limited with them, not counted, and not waited for when the agent stops or hands over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from outrider.calls.frames import MAX_FRAME, Refusal, Reply, Request
from outrider.errors import CallError, CallFailed, CallRefused, CallTimeout, FrameError

if TYPE_CHECKING:
    from outrider.calls.serving import ServedConnection

log = logging.getLogger("outrider.calls")

PREFIX = "outrider."  # no method of an agent begins so
Serve = Callable[[Raw, float], Awaitable[Any]]  # the body, and the seconds that it may take


class Internal:
    """One such method. It is a coroutine, and its work is done on threads."""

    def __init__(self, name: str, serve: Serve) -> None:
        self._name = name
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, connection: ServedConnection, request: Request) -> None:
        """Answer, now or later."""
        task = asyncio.get_running_loop().create_task(self._answer(connection, request), name=self._name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, connection: ServedConnection, request: Request) -> None:
        try:
            value = await self._served(request)
        except CallError as error:
            connection.send(Refusal(request.id, 0, error.kind, error.message))
            return
        try:
            connection.send(Reply(request.id, 0, value), MAX_FRAME)
        except FrameError as error:
            connection.send(Refusal(request.id, 0, CallRefused.kind, error.message))

    async def _served(self, request: Request) -> Any:
        """Raises the CallError that the caller gets."""
        limit_s = request.timeout_us / 1e6
        try:
            async with asyncio.timeout(limit_s):
                return await self._serve(request.body, limit_s)
        except TimeoutError:
            raise CallTimeout(f"{self._name} took longer than {limit_s:g} s") from None
        except (msgspec.MsgspecError, ValueError) as error:
            raise CallRefused(f"{self._name}: {error}") from error
        except OSError as error:
            raise CallFailed(f"{self._name}: {error}") from error
        except CallError:
            raise
        except Exception as error:
            log.exception("%s failed", self._name)
            raise CallFailed(f"{type(error).__name__}: {error}") from error
