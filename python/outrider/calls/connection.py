"""A blocking connection to an instance, used by one call at a time, in the caller's own thread: the shortest way."""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

from outrider.calls import frames
from outrider.calls.frames import MAX_FRAME, PREFIX, Hello, Refusal, Reply, Request, Welcome, from_agent, lengths
from outrider.errors import CallTimeout, ConnectionLost

ROOM = 64 * 1024
TIMEVAL = struct.Struct("@ll")
LOOK_S = 0.2  # who waits for an answer looks so often whether there can be one still
LOST = "its host is lost"

Answer = tuple[Reply | Refusal, memoryview | None]


class Connection:
    """Says hello for `agent` with the first call. `welcome` is what the instance said of itself, once it has.

    lost: whether the other side's host is lost, of which a connection says nothing
    """

    def __init__(
        self,
        sock: socket.socket,
        agent: str,
        caller: str,
        limit: int = MAX_FRAME,
        lost: Callable[[], bool] | None = None,
    ) -> None:
        self.welcome: Welcome | None = None
        self._socket = sock
        self._limit = limit
        self._lost = lost
        self._watched = lost  # None while nobody would be helped by looking
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._timeout_ms = 0
        sock.settimeout(None)
        self._ids = itertools.count(1)
        self._room = bytearray(ROOM)
        self._view = memoryview(self._room)
        self._begin = self._end = 0
        self._greeting = frames.encode(Hello(frames.VERSION, agent, caller))

    def exchange(
        self, method: str, body: Any, trace: str, epoch: int, until: float, now: float, in_need: bool = False
    ) -> Answer:
        """Send one request and wait for what answers it, until `until`; the buffers are of its arrays.

        in_need: its host was lost already, and is asked for want of a better one: wait until the end
        What an earlier call gave up waiting for is skipped. After CallTimeout, ConnectionLost or FrameError the
        connection is of no use. Raises TypeError for a body that cannot be sent, and then it is.
        """
        number = next(self._ids)
        self._watched = None if in_need else self._lost
        # The other side counts from the receipt.
        parts = frames.encode(Request(number, method, int((until - now) * 1e6), trace, epoch, body))
        if self._greeting:
            parts, self._greeting = [*self._greeting, *parts], []
        self._send(parts, until, now)
        try:
            if self._is_tls:
                self._receive_at_most(until - now)
            while True:
                message, buffers = self._receive(until)
                if isinstance(message, Welcome):
                    self.welcome = message
                elif message.id == number:
                    return message, buffers
                elif isinstance(message, Refusal) and message.id == 0:
                    raise ConnectionLost(message.message, safe=True)
        except (TimeoutError, BlockingIOError):
            raise CallTimeout("no answer before the deadline") from None
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {error.strerror or error}") from error

    def close(self) -> None:
        """Whoever is on the other side sees it, and stops working on what was asked."""
        self._socket.close()

    def _send(self, parts: list[Any], until: float, now: float) -> None:
        sock = self._socket
        self._wait_at_most(until - now)
        try:
            total = sum(map(len, parts))
            sent = sock.send(parts[0]) if len(parts) == 1 else self._send_parts(parts)
            if sent < total:
                sock.sendall(memoryview(b"".join(parts))[sent:])
        except (TimeoutError, BlockingIOError):
            raise CallTimeout("the call could not be sent before the deadline") from None
        except OSError as error:
            # Before the first byte is taken nobody can have read it.
            raise ConnectionLost(f"the connection is gone: {error.strerror or error}", safe=True) from error

    def _send_parts(self, parts: list[Any]) -> int:
        try:
            return self._socket.sendmsg(parts)
        except NotImplementedError:  # TLS
            self._socket.sendall(b"".join(parts))
            return sum(map(len, parts))

    def _wait_at_most(self, seconds: float) -> None:
        # In whole milliseconds: most calls of one place then need no system call for it.
        timeout_ms = max(1, int(seconds * 1000))
        if timeout_ms == self._timeout_ms:
            return
        self._timeout_ms = timeout_ms
        if self._is_tls:
            self._socket.settimeout(timeout_ms / 1000)
        else:
            # The kernel's own: a timeout of Python's costs a poll before each send and each receive.
            most_ms = timeout_ms if self._lost is None else min(timeout_ms, int(LOOK_S * 1000))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(most_ms))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(timeout_ms))

    def _receive(self, until: float) -> tuple[Welcome | Reply | Refusal, memoryview | None]:
        """The next message. Raises FrameError, ConnectionLost, TimeoutError and OSError."""
        self._have(PREFIX.size, until)
        message_size, buffers_size = lengths(self._room, self._begin, self._limit)
        self._begin += PREFIX.size
        view = self._take(message_size, until)
        buffers = self._take_aside(buffers_size, until) if buffers_size else None
        return from_agent(view), buffers

    def _have(self, size: int, until: float) -> None:
        """Wait until `size` bytes lie in the room."""
        again = False
        while self._end - self._begin < size:
            if self._begin == self._end:
                self._begin = self._end = 0
            elif self._begin + size > ROOM:
                rest = self._end - self._begin
                self._room[:rest] = self._room[self._begin : self._end]
                self._begin, self._end = 0, rest
            self._end += self._read_into(self._view[self._end :], until, again)
            again = True

    def _take(self, size: int, until: float) -> memoryview:
        """As a view of the room, which the next call uses again: the body is decoded before that."""
        if size > ROOM:
            return self._take_aside(size, until)
        self._have(size, until)
        view = self._view[self._begin : self._begin + size]
        self._begin += size
        return view

    def _take_aside(self, size: int, until: float) -> memoryview:
        """Into memory of its own: arrays are views of it, and live on."""
        own = memoryview(bytearray(size))
        filled = min(size, self._end - self._begin)
        own[:filled] = self._view[self._begin : self._begin + filled]
        self._begin += filled
        while filled < size:
            filled += self._read_into(own[filled:], until, again=True)
        return own

    def _read_into(self, view: memoryview, until: float, again: bool) -> int:
        if again:
            # An answer that comes in pieces may not take longer than one that comes at once.
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._receive_at_most(left_s)
        while True:
            try:
                count = self._socket.recv_into(view)
                break
            except (TimeoutError, BlockingIOError):
                self._go_on_waiting(until)
        if not count:
            raise ConnectionLost("the instance closed the connection before it answered")
        return count

    def _go_on_waiting(self, until: float) -> None:
        """Nothing came for a while. Raises TimeoutError at the end, ConnectionLost if nothing can come any more."""
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        if self._watched and self._watched():
            raise ConnectionLost(LOST)
        self._receive_at_most(left_s)

    def _receive_at_most(self, seconds: float) -> None:
        # TLS has one timeout for both directions, and what is cut off while it is sent cannot be sent on.
        self._wait_at_most(min(seconds, LOOK_S) if self._is_tls and self._watched else seconds)


def _timeval(milliseconds: int) -> bytes:
    return TIMEVAL.pack(milliseconds // 1000, milliseconds % 1000 * 1000)
