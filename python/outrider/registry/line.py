"""One kept connection to a Consul agent, which another thread may cut: what a blocking query waits on."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from outrider.errors import ConsulError, ConsulUnreachable
from outrider.registry.address import Address

CONNECT_S = 1.0
# A fleet of 50,000 instances answers in about 50 MB; what is bigger is not Consul talking.
BODY_MAX_BYTES = 256 * 2**20
READ_BYTES = 2**18

# The other side closed a connection that was kept, or is at its limit of connections (Consul then answers nothing).
_DROPPED = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, http.client.IncompleteRead)


class Raw(Struct, frozen=True):
    """An HTTP answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Line:
    """Used by one thread at a time; `cut` may be called from any."""

    def __init__(self, address: Address, context: ssl.SSLContext | None = None) -> None:
        self.address = address
        self._http: http.client.HTTPConnection
        if context:
            self._http = http.client.HTTPSConnection(address.host, address.port, context=context)
        else:
            self._http = http.client.HTTPConnection(address.host, address.port)
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._cut = False

    def request(
        self, method: str, target: str, *, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Raw:
        """One request, answered whole within `timeout_s` or ConsulUnreachable. A GET that was dropped is sent again."""
        deadline = time.monotonic() + timeout_s
        try:
            try:
                return self._once(method, target, headers, body, deadline)
            except _DROPPED:
                self.close()
                if method != "GET" or self._cut:
                    raise
                return self._once(method, target, headers, body, deadline)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.close()
            raise ConsulUnreachable(
                f"Consul at {self.address} does not answer: {'cut off here' if self._cut else _reason(error)}",
                hint="is the Consul agent running? `outrider doctor` looks",
            ) from error
        except BaseException:
            # Half an answer may wait in the socket: the next request must not take it for its own.
            self.close()
            raise

    def cut(self) -> None:
        """Whoever waits on this line gets ConsulUnreachable at once, and so does every later request."""
        with self._lock:
            self._cut = True
            if self._sock:
                with contextlib.suppress(OSError):
                    # Not the method of an SSL socket: that one drops the state which the waiting thread reads.
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    @property
    def is_cut(self) -> bool:
        """Whether it can be used no more."""
        return self._cut

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        with self._lock:
            self._http.close()

    def _once(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, deadline: float) -> Raw:
        sock = self._connected(deadline)
        sock.settimeout(_left_s(deadline))
        self._http.request(method, target, body=body, headers=dict(headers))
        reply = self._http.getresponse()
        raw = Raw(reply.status, {name.lower(): value for name, value in reply.getheaders()}, b"")
        chunks, size = [], 0
        while not reply.isclosed():
            sock.settimeout(_left_s(deadline))
            if not (chunk := reply.read1(READ_BYTES)):
                break
            chunks.append(chunk)
            size += len(chunk)
            if size > BODY_MAX_BYTES:
                raise ConsulError(f"Consul at {self.address} answers with more than {BODY_MAX_BYTES} bytes")
        if reply.length:
            raise http.client.IncompleteRead(b"", reply.length)
        reply.close()
        return replace(raw, body=b"".join(chunks))

    def _connected(self, deadline: float) -> socket.socket:
        if self._http.sock and _readable(self._http.sock):
            # Nothing was asked, so what can be read is the end of the connection.
            self.close()
        if not self._http.sock:
            self._http.timeout = min(CONNECT_S, _left_s(deadline))
            self._http.connect()
        with self._lock:
            self._sock = self._http.sock
            if self._cut or self._sock is None:
                raise ConnectionError("cut off here")
            return self._sock


def _readable(sock: socket.socket) -> bool:
    # Not select(): it takes no descriptor above 1023, and a shim has many.
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _reason(error: BaseException) -> str:
    """For people: `connection refused`, `timed out`, ..."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {getattr(error, 'verify_message', '') or error.reason or error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, http.client.RemoteDisconnected):
        return "closed the connection without an answer"
    return f"{type(error).__name__} {error}".strip()
