"""Probes over TCP: whether it connects, and whether an HTTP GET is answered, over one connection kept open.

Bare sockets on the event loop: with 77 agents asked twice a second this is most of what a shim costs.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from abc import abstractmethod

from outrider.fleet.spec import Probe
from outrider.host.http_reply import BadReply, Reply, read_reply
from outrider.host.probers import Kind, Prober, Target

RESET = struct.pack("ii", 1, 0)
REFUSALS = {errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED}

SockAddr = tuple[str | int, ...] | tuple[int, bytes]


def kind_of(problem: int) -> Kind:
    """Whether an error number is the kernel's word for a port that nobody serves, or one that says nothing of it."""
    return "silence" if problem == errno.ETIMEDOUT else "refusal" if problem in REFUSALS else "answer"


class SocketProber(Prober):
    """What both share: connecting without blocking."""

    def __init__(self, probe: Probe, target: Target) -> None:
        super().__init__(probe, target)
        self._sock: socket.socket | None = None
        self._resolved: tuple[socket.AddressFamily, SockAddr] | None = None

    @property
    def where(self) -> str:
        """Address and port, as people write them."""
        host = f"[{self.target.address}]" if ":" in self.target.address else self.target.address
        return f"{host}:{self.target.port}"

    def _connect(self) -> None:
        try:
            family, address = self._resolve()
            self._sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            problem = self._sock.connect_ex(address)
        except OSError as error:
            self._fail(error.strerror or str(error))
            return
        if problem == errno.EINPROGRESS:
            self._loop.add_writer(self._sock, self._connected)
        elif problem:
            self._fail(os.strerror(problem), kind_of(problem))
        else:
            self._connected()

    def _resolve(self) -> tuple[socket.AddressFamily, SockAddr]:
        """Looked up once: an instance does not move, and a name server may be slow."""
        if self._resolved is None:
            found = socket.getaddrinfo(self.target.address, self.target.port, type=socket.SOCK_STREAM)
            family, _, _, _, address = found[0]
            self._resolved = (family, address)
        return self._resolved

    def _connected(self) -> None:
        assert self._sock is not None
        self._loop.remove_writer(self._sock)
        if problem := self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail(os.strerror(problem), kind_of(problem))
        elif self._sock.getsockname() == self._sock.getpeername():
            # The kernel gave us the very port that nobody listens on, so we would be talking to ourselves. Closed by a
            # reset: otherwise the port stays in TIME_WAIT, in the way of the server that is about to start.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._fail(os.strerror(errno.ECONNREFUSED), "refusal")
        else:
            self._on_connected(self._sock)

    def _fail(self, why: str, kind: Kind = "answer") -> None:
        self._drop()
        self._finish(False, f"{self.describe()}: {why}", kind)

    def _drop(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.remove_writer(sock)
            self._loop.remove_reader(sock)
            sock.close()

    @abstractmethod
    def _on_connected(self, sock: socket.socket) -> None:
        """The connection stands."""


class TcpProber(SocketProber):
    """Well if it accepts a connection."""

    def describe(self) -> str:
        """What is asked, for people."""
        return f"connect to {self.where}"

    def _ask(self) -> None:
        self._connect()

    def _on_connected(self, sock: socket.socket) -> None:
        self._drop()
        self._finish(True)


class HttpProber(SocketProber):
    """Well if GET is answered with a status below 400."""

    def __init__(self, probe: Probe, target: Target) -> None:
        super().__init__(probe, target)
        head = f"GET {probe.path} HTTP/1.1\r\nHost: {self.where}\r\nUser-Agent: outrider\r\nAccept: */*\r\n\r\n"
        self._request = head.encode("ascii", "replace")
        self._data = bytearray()
        self._used_before = False

    def describe(self) -> str:
        """What is asked, for people."""
        return f"GET http://{self.where}{self.probe.path}"

    def _ask(self) -> None:
        self._used_before = self._sock is not None
        if self._sock is None:
            self._connect()
        else:
            self._send(self._sock)

    def _on_connected(self, sock: socket.socket) -> None:
        self._loop.add_reader(sock, self._readable)
        self._send(sock)

    def _send(self, sock: socket.socket) -> None:
        self._data.clear()
        try:
            sock.send(self._request)
        except OSError as error:
            self._lost(error.strerror or str(error))

    def _readable(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error.strerror or str(error))
            return
        if not self.asking:
            self._drop()  # closed while idle, or it talks unasked
            return
        self._data += data
        try:
            reply = read_reply(self._data, closed=not data)
        except BadReply as error:
            self._fail(str(error))
            return
        if reply is not None:
            self._answered(reply)
        elif not data:
            self._lost("it closed the connection before its answer was complete")

    def _answered(self, reply: Reply) -> None:
        if not reply.reusable:
            self._drop()
        if reply.status < 400:
            self._finish(True)
        else:
            self._finish(False, f"{self.describe()}: status {reply.status}")

    def _lost(self, why: str) -> None:
        """A server may close a kept connection just when we use it: that says nothing, ask on a new one."""
        if self._used_before and not self._data:
            self._used_before = False
            self._drop()
            self._connect()
        elif self.asking:
            self._fail(why, "refusal")
        else:
            self._drop()
