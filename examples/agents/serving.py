"""The serving loop: a small HTTP/1.1 server on one selector, with keep-alive, a heartbeat and a graceful end."""

from __future__ import annotations

import collections
import contextlib
import os
import selectors
import signal
import socket
import sys
import time

from wire import Refused, reply
from workers import Workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from connection import Connection
    from wire import Body, Head

    class App(Protocol):
        """What is served. `handle` runs on a worker thread unless `is_quick`; it raises Refused for bad input."""

        draining: bool

        def is_quick(self, head: Head, port: str) -> bool: ...
        def handle(self, head: Head, body: bytes, port: str) -> tuple[int, Body]: ...


BEAT_S = 1.0
STOP_S = 1.8
IDLE_S = 120.0
MAX_CONNECTIONS = 512


class Server:
    """Serves one app on its ports until SIGTERM or SIGINT."""

    def __init__(self, app: App, address: str, ports: dict[str, int], heartbeat: str = "") -> None:
        """Binds at once. Raises OSError with the port in its message."""
        self.app = app
        self.ports: dict[str, int] = {}
        self.in_flight = 0
        self._heartbeat = heartbeat
        self._selector = selectors.DefaultSelector()
        self._workers = Workers()
        self._connections: set[Connection] = set()
        self._finished: collections.deque[tuple[Connection, bytes, bool]] = collections.deque()
        self._stop_at: float | None = None
        self._wake_in, self._wake_out = socket.socketpair()
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ, self._woken)
        for name, port in ports.items():
            self._listen(name, address, port)

    def run(self) -> None:
        """Serve. Returns when asked to stop and nothing is in flight, or after STOP_S."""
        signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._drain)
        beat_at = 0.0
        while True:
            now = time.monotonic()
            if now >= beat_at:
                beat_at = now + BEAT_S
                self._beat(now)
            # While draining, leave only when a look at the sockets found nothing: a request may have arrived already.
            events = self._selector.select(0.02 if self._stop_at else beat_at - now)
            for key, mask in events:
                key.data(mask)
            if self._stop_at and (time.monotonic() >= self._stop_at or not (events or self._busy())):
                return

    def start_job(self, job: Callable[[], None]) -> None:
        """Run something on a worker thread, such as the loading of a model."""
        self._workers.submit(job)

    def dispatch(self, connection: Connection, head: Head, body: bytes) -> None:
        """Serve one request; the reply goes to `connection.answered` on this thread."""
        keep_alive = head.keep_alive and self._stop_at is None
        if self.app.is_quick(head, connection.port):
            connection.answered(self._answer(connection.port, head, body, keep_alive), keep_alive)
            return

        def job() -> None:
            self._finished.append((connection, self._answer(connection.port, head, body, keep_alive), keep_alive))
            self._wake()

        self.in_flight += 1
        if not self._workers.submit(job):
            self.in_flight -= 1
            busy = Refused(503, "too many requests wait already", "try another instance, or later")
            connection.answered(reply(503, busy.document(), keep_alive=keep_alive), keep_alive)

    def watch(self, connection: Connection, mask: int) -> None:
        """Wait for what a connection wants next."""
        self._selector.modify(connection.socket, mask, connection.ready)

    def forget(self, connection: Connection) -> None:
        """A connection is over."""
        self._selector.unregister(connection.socket)
        self._connections.discard(connection)

    def _listen(self, name: str, address: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            raise OSError(error.errno, f"port {port} ({name}) of {address}: {error.strerror}") from error
        listener.listen(128)
        listener.setblocking(False)
        self.ports[name] = listener.getsockname()[1]
        self._selector.register(listener, selectors.EVENT_READ, lambda _mask: self._accept(listener, name))

    def _accept(self, listener: socket.socket, name: str) -> None:
        from connection import Connection

        try:
            sock, _ = listener.accept()
        except OSError:  # gone again, or out of file descriptors: the next event tries again
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self, sock, name)
        self._connections.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, connection.ready)

    def _answer(self, port: str, head: Head, body: bytes, keep_alive: bool) -> bytes:
        try:
            status, answer = self.app.handle(head, body, port)
        except Refused as refused:
            status, answer = refused.status, refused.document()
        except Exception as error:  # one bad request never ends an agent
            import traceback

            traceback.print_exc()
            status, answer = 500, {"error": f"{type(error).__name__}: {error}", "hint": "a bug; see the agent's log"}
        return reply(status, answer, keep_alive=keep_alive, content_type=head.content_type)

    def _woken(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_in.recv(4096)
        while self._finished:
            connection, data, keep_alive = self._finished.popleft()
            self.in_flight -= 1
            connection.answered(data, keep_alive)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            self._wake_out.send(b"\0")

    def _busy(self) -> bool:
        return self.in_flight > 0 or any(connection.is_busy() for connection in self._connections)

    def _drain(self, number: int, _frame: object) -> None:
        if self._stop_at is None:
            self._stop_at = time.monotonic() + STOP_S
            self.app.draining = True
            print(f"{signal.Signals(number).name}: finish {self.in_flight} in flight, then exit", file=sys.stderr)

    def _beat(self, now: float) -> None:
        for connection in [c for c in self._connections if now - c.last_at > IDLE_S and not c.is_busy()]:
            connection.close()
        if not self._heartbeat:
            return
        try:
            _touch(self._heartbeat)
        except OSError as error:
            print(f"heartbeat {self._heartbeat}: {error.strerror}", file=sys.stderr)
            self._heartbeat = ""  # said once; its age tells the shim


def _touch(path: str) -> None:
    try:
        os.utime(path)
    except FileNotFoundError:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        os.utime(path)
