"""Serving calls: an agent's methods, how many run at once, its start and its graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, overload

from outrider.calls.dispatch import Dispatcher
from outrider.calls.endpoint import short_name, socket_path
from outrider.calls.fence import Fence
from outrider.calls.frames import MAX_FRAME
from outrider.calls.methods import Method
from outrider.calls.serving import ServedConnection
from outrider.calls.state_moves import StateMoves
from outrider.calls.tls import server_context
from outrider.discovery import lease_file
from outrider.discovery.api import runtime_dir
from outrider.errors import HostError
from outrider.fleet.ports import CALL

Function = TypeVar("Function", bound=Callable[..., Any])

STOP_S = 4.0  # the shim kills after 5
LINGER_S = 0.05  # callers that have just looked us up are still told that we stop


class Agent:
    """An agent that serves calls. Under a shim everything but its methods comes from the environment.

    name, instance: by default $OUTRIDER_AGENT and $OUTRIDER_INSTANCE
    address, port: where other hosts reach it; by default $OUTRIDER_ADDRESS and $OUTRIDER_PORT_CALL. 0 takes a free
        port, which `port` then says; without a port it serves its own host only
    socket: its Unix socket; by default the one where callers of this host look; None for none
    concurrency: calls worked on at one time
    queue: calls that may wait for their turn; what is more is refused with Overloaded
    max_frame: bytes of a request or a reply, its arrays included
    """

    def __init__(
        self,
        name: str = "",
        *,
        instance: str = "",
        address: str = "",
        port: int | None = None,
        socket: Path | str | None = "",
        concurrency: int = 16,
        queue: int = 64,
        max_frame: int = MAX_FRAME,
    ) -> None:
        env = os.environ
        self.name = name or env.get("OUTRIDER_AGENT", "agent")
        self.instance = instance or env.get("OUTRIDER_INSTANCE", self.name)
        self.address = address or env.get("OUTRIDER_ADDRESS", "127.0.0.1")
        declared = env.get(f"OUTRIDER_PORT_{CALL.upper()}")
        self.port = port if port is not None else (int(declared) if declared else None)
        self.socket = _default_socket(self.instance) if socket == "" else (Path(socket) if socket else None)
        self.max_frame = max_frame
        self._dispatcher = Dispatcher(self.name, self.instance, concurrency, queue)
        if lease := lease_file.of_environment():
            self._dispatcher.fence = Fence(self.name, self.instance, lease)
        self._moves: StateMoves | None = None
        if state := env.get("OUTRIDER_STATE"):
            self._moves = StateMoves(self.name, self.instance, Path(state))
            self._dispatcher.add_internal(self._moves.methods())
        self._connections: set[ServedConnection] = set()
        self._servers: list[asyncio.Server] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._listening = threading.Event()
        self._error: BaseException | None = None

    @overload
    def method(
        self, function: Function, *, name: str = "", idempotent: bool = False, quick: bool = False
    ) -> Function: ...
    @overload
    def method(
        self, function: None = None, *, name: str = "", idempotent: bool = False, quick: bool = False
    ) -> Callable[[Function], Function]: ...
    def method(
        self, function: Function | None = None, *, name: str = "", idempotent: bool = False, quick: bool = False
    ) -> Any:
        """Serve a function or coroutine under its name. Use as `@agent.method` or `@agent.method(idempotent=True)`.

        idempotent: to work on a call twice does no harm, so that callers may repeat it
        quick: a function that takes microseconds and never waits runs on the event loop; others run on threads
        """

        def add(function: Function) -> Function:
            self._dispatcher.add(Method(function, name or function.__name__, idempotent=idempotent, quick=quick))
            return function

        return add if function is None else add(function)

    def checkpoint(self, function: Function) -> Function:
        """Call this function or coroutine before the state of this instance moves to another. Use as a decorator.

        Nothing is under way then. It writes to $OUTRIDER_STATE what is only in memory, and then leaves that alone until
        `epoch` is not 0 again: what is written there while it moves keeps the move from being done.
        """
        if self._moves:
            self._moves.on_checkpoint = function
        return function

    def restore(self, function: Function) -> Function:
        """Call this function or coroutine when $OUTRIDER_STATE was replaced by the state of another instance.

        It reads it again, before the first call under the next lease comes. Use as a decorator.
        """
        if self._moves:
            self._moves.on_restore = function
        return function

    def ready(self, is_ready: bool, detail: str = "") -> None:
        """What the built-in health method answers from now on; an agent is ready until it says otherwise."""
        self._dispatcher.ready, self._dispatcher.detail = is_ready, detail

    @property
    def epoch(self) -> int:
        """The epoch of the lease that this instance of a singleton holds now; 0 for a standby, and for a replica.

        While a call is worked on: the one that the call was accepted under, also when that has ended since.

        Read from memory. What a singleton does by itself, and not for a caller, it does only while this is not 0, and
        whatever it writes elsewhere it writes with this number, so that an earlier holder's write can be told. It is 0
        already while the lease is about to be handed over, and only calls under way are finished.
        """
        return self._dispatcher.epoch_of_work

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then end gracefully. Call it from the main thread. Raises HostError."""
        asyncio_run(self._serve_until_signal())

    def start(self) -> None:
        """Serve on a thread of its own; returns when callers can connect. Raises HostError."""
        self._listening.clear()
        self._thread = threading.Thread(target=self._run_thread, name=f"calls-{self.instance}", daemon=True)
        self._thread.start()
        self._listening.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End gracefully what `start` began: refuse new calls, finish those under way, close."""
        if self._thread is not None and self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(STOP_S + 1)
            self._thread = None

    async def serve(self) -> None:
        """Serve on the running loop until `stop` or cancellation, then end gracefully. Raises HostError."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._dispatcher.attach(self._loop)
        try:
            await self._listen()
            self._listening.set()
            await self._stop.wait()
        finally:
            await self._drain()

    async def _serve_until_signal(self) -> None:
        loop = asyncio.get_running_loop()
        serving = loop.create_task(self.serve())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: self._stop.set() if self._stop else serving.cancel())
        await serving

    def _run_thread(self) -> None:
        try:
            asyncio_run(self.serve())
        except BaseException as error:
            self._error = error
            if not isinstance(error, HostError):
                raise
        finally:
            self._listening.set()

    async def _listen(self) -> None:
        """Raises HostError naming what is taken."""
        loop = asyncio.get_running_loop()
        if self.socket is not None:
            await self._listen_on_socket(loop, self.socket)
        if self.port is None:
            return
        tls = server_context()
        try:
            server = await loop.create_server(
                lambda: self._connection(None), self.address, self.port, ssl=tls, backlog=1024
            )
        except OSError as error:
            raise HostError(f"{self.instance}: port {self.port} of {self.address}: {error.strerror}") from error
        self._servers.append(server)
        self.port = server.sockets[0].getsockname()[1]

    async def _listen_on_socket(self, loop: asyncio.AbstractEventLoop, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Beside it, then moved into place: a caller never finds one that nobody listens on.
            scratch = path.with_name(f"{path.name}.{os.getpid()}")
            scratch.unlink(missing_ok=True)
            with short_name(scratch) as name:
                server = await loop.create_unix_server(lambda: self._connection(path), name, backlog=1024)
            scratch.chmod(0o666)  # who may come in says the folder
            scratch.replace(path)
        except OSError as error:
            raise HostError(f"{self.instance}: cannot listen on {path}: {error.strerror}") from error
        self._servers.append(server)

    def _connection(self, _path: Path | None) -> ServedConnection:
        return ServedConnection(self._dispatcher, self._connections, self.max_frame)

    async def _drain(self) -> None:
        """Refuse what is new, finish what is under way while somebody waits for it, at most STOP_S long."""
        self._dispatcher.draining = True
        await asyncio.sleep(LINGER_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(STOP_S, self._dispatcher.awaited_s())):
                await self._dispatcher.idle.wait()
        for server in self._servers:
            server.close()
        self._servers.clear()
        for connection in list(self._connections):
            connection.close(f"{self.instance} is stopping")
        await asyncio.sleep(0)
        self._dispatcher.close()
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)


def _default_socket(instance: str) -> Path | None:
    """Where callers look for it, if a shim made the folder."""
    path = socket_path(Path(runtime_dir()), instance)
    return path if path.parent.is_dir() else None


def asyncio_run(main: Any) -> None:
    """On uvloop where it is installed: a third of the time of asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
