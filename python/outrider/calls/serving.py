"""One caller's connection, on the side that serves: bytes to requests, replies to bytes."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any, cast

from outrider.calls import frames
from outrider.calls.dispatch import Dispatcher
from outrider.calls.frames import FrameReader, Hello, Refusal, Request, from_caller
from outrider.errors import FrameError

log = logging.getLogger("outrider.calls")


class ServedConnection(asyncio.Protocol):
    """A malformed, oversized or half-written frame ends this connection, is logged, and harms no other."""

    def __init__(self, dispatcher: Dispatcher, connections: set[ServedConnection], max_frame: int) -> None:
        self.caller = ""
        self._dispatcher = dispatcher
        self._connections = connections
        self._max_frame = max_frame
        self._reader = FrameReader(max_frame)
        self._greeted = False
        self._open = False
        self._ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._open = True
        self._connections.add(self)
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Of asyncio.Protocol."""
        if self._ending:
            return
        try:
            for view, buffers in self._reader.feed(data):
                if not self._ending:
                    self._take(from_caller(view), buffers)
        except FrameError as error:
            self._end(error.message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio.Protocol."""
        self._open = False
        self._connections.discard(self)
        self._dispatcher.gone(self)
        if self._reader.inside:
            log.warning("%s went away in the middle of a frame", self.caller or "a caller")

    def pause_writing(self) -> None:
        """Of asyncio.Protocol: a caller that does not read its replies is not asked for more."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Of asyncio.Protocol."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def send(self, message: Any, limit: int = 0) -> None:
        """A reply or a refusal, of at most `limit` bytes if that is more than an agent's own replies may have.

        Raises TypeError for a value that cannot be sent, FrameError for too large a one.
        """
        if not self._open:
            return
        parts = frames.encode(message)
        if sum(map(len, parts)) - frames.PREFIX.size > max(limit, self._max_frame):
            raise FrameError(f"the reply is larger than {max(limit, self._max_frame)} bytes")
        if len(parts) == 1:
            self._transport.write(parts[0])
        else:
            self._transport.writelines(parts)

    def close(self, why: str) -> None:
        """After what was written is sent, and `why`: the caller then knows that nobody worked on what is unanswered."""
        self.send(Refusal(0, 0, "draining", why))
        self._ending = True
        self._transport.close()

    def _take(self, message: Hello | Request, buffers: memoryview | None) -> None:
        if isinstance(message, Request):
            if not self._greeted:
                raise FrameError("a request before the hello")
            self._dispatcher.accept(self, message, buffers)
            return
        refusal = self._dispatcher.unwelcome(message)
        if refusal:
            log.warning("%s: %s; the connection is closed", message.caller or "a caller", refusal)
            self.close(refusal)
            return
        self._greeted = True
        self.caller = message.caller
        self.send(self._dispatcher.welcome())

    def _end(self, why: str) -> None:
        log.warning("%s: %s; the connection is closed", self.caller or "a caller", why)
        self._ending = True
        self._transport.close()
