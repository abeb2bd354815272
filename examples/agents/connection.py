"""One client's connection: bytes to requests, one at a time, and replies back, however slowly the client reads."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time

from wire import CONTINUE, Refused, reply, take_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from serving import Server
    from wire import Head

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
MAX_AHEAD_BYTES = 64 * 1024
MAX_DISCARDED_BYTES = 64 * 1024 * 1024


class Connection:
    """Reads one request, waits for its reply, then reads the next."""

    def __init__(self, server: Server, sock: socket.socket, port: str) -> None:
        self.socket = sock
        self.port = port
        self.last_at = time.monotonic()
        self._server = server
        self._input = bytearray()
        self._output = bytearray()
        self._head: Head | None = None
        self._serving = False
        self._closing = False
        self._closed = False
        self._refused = False
        self._discarded = 0
        self._advancing = False
        self._mask = READ

    def ready(self, mask: int) -> None:
        """The selector's callback."""
        self.last_at = time.monotonic()
        if mask & WRITE:
            self._write()
        if mask & READ and not self._closed:
            self._read()

    def answered(self, data: bytes, keep_alive: bool) -> None:
        """The reply of the request that was dispatched."""
        if self._closed:
            return
        self._serving = False
        self._closing = not keep_alive
        self._send(data)
        self._advance()

    def is_busy(self) -> bool:
        """True while a request is served or its reply is on the way."""
        return self._serving or bool(self._output)

    def close(self) -> None:
        """End it, whatever is under way."""
        if not self._closed:
            self._closed = True
            self._server.forget(self)
            self.socket.close()

    def _read(self) -> None:
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        if self._refused:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED_BYTES:
                self.close()
            return
        self._input += data
        if self._serving and len(self._input) > MAX_AHEAD_BYTES:
            self.close()  # it sends and sends without reading its reply
            return
        self._advance()

    def _advance(self) -> None:
        """Dispatch what the input holds, one request after the other. A loop: quick replies come back in the call."""
        if self._advancing:
            return
        self._advancing = True
        while not (self._serving or self._output or self._closing or self._closed) and self._dispatch_next():
            pass
        self._advancing = False

    def _dispatch_next(self) -> bool:
        """False if the input holds no whole request."""
        try:
            head = self._head or take_head(self._input)
        except Refused as refused:
            self._closing = self._refused = True  # what follows cannot be told apart any more
            self._send(reply(refused.status, refused.document(), keep_alive=False))
            return False
        self._head = head
        if head is None:
            return False
        if len(self._input) < head.length:
            if head.expects:
                head.expects = False
                self._send(CONTINUE)
            return False
        body = bytes(self._input[: head.length])
        del self._input[: head.length]
        self._head, self._serving = None, True
        self._server.dispatch(self, head, body)
        return True

    def _send(self, data: bytes) -> None:
        self._output += data
        self._write()

    def _write(self) -> None:
        try:
            sent = self.socket.send(self._output) if self._output else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._output[:sent]
        if self._output:
            self._watch(WRITE)  # not READ: a client that does not read its reply gets no second one
        elif self._refused:
            self._end_reply()
        elif self._closing:
            self.close()
        else:
            self._watch(READ)
            self._advance()

    def _end_reply(self) -> None:
        """Read and drop what the client still sends: closing at once would reset the connection, reply and all."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        self._watch(READ)

    def _watch(self, mask: int) -> None:
        if mask != self._mask:
            self._mask = mask
            self._server.watch(self, mask)
