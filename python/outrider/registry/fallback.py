"""Several Consul agents as one: after one that did not answer, the next is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Sequence

from outrider.errors import ConsulUnreachable
from outrider.registry.address import Address
from outrider.registry.line import Line, Raw
from outrider.registry.transport import Params, Transport

# So long after it went unanswered the first one, which is the host's own, is tried again.
HOME_S = 30.0
# What an agent says that has lost the servers, or a server that has lost the others.
ALONE = (b"No cluster leader", b"No known Consul servers", b"rpc error")


class Fallback(Transport):
    """A request fails where one Consul agent does not answer it, or knows no leader; the next goes to the next agent.

    It is not sent again here: whether a write was done nobody knows, and who waits for a read decides how long. A line
    that was cut while it waited counts as one that was not answered.
    `avoid`: hosts' addresses that are better not asked now. Thread-safe.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        avoid: Callable[[], Container[str]] = lambda: (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(addresses[0])
        self._transports = [Transport(address) for address in addresses]
        self._avoid = avoid
        self._clock = clock
        self._asked = self._transports[0]
        self._home_at = 0.0
        self._lock = threading.Lock()

    def line(self, old: Line | None = None) -> Line:
        """A connection to the one that is asked now."""
        asked = self._now()
        if old and old.address != asked.address:
            old.close()
            old = None
        return asked.line(old)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Params = None,
        body: bytes | None = None,
        timeout_s: float | None = None,
        token: str = "",
        line: Line | None = None,
    ) -> Raw:
        """As Transport's."""
        asked = self._of(line) if line else self._now()
        try:
            raw = asked.request(method, path, params=params, body=body, timeout_s=timeout_s, token=token, line=line)
        except ConsulUnreachable:
            self._move_on(asked)
            raise
        if raw.status >= 500 and any(sign in raw.body for sign in ALONE):
            self._move_on(asked)
        return raw

    def close(self) -> None:
        """Drop every connection that is not in use."""
        for transport in self._transports:
            transport.close()

    def _now(self) -> Transport:
        with self._lock:
            if self._clock() >= self._home_at:
                self._asked = self._transports[0]
            return self._asked

    def _of(self, line: Line) -> Transport:
        return next(transport for transport in self._transports if transport.address == line.address)

    def _move_on(self, failed: Transport) -> None:
        """Unless another request has moved on already."""
        with self._lock:
            if failed is not self._asked:
                return
            at = self._transports.index(failed) + 1
            following = [*self._transports[at:], *self._transports[:at]]
            avoided = self._avoid()
            fit = (each for each in following if each.address.host not in avoided)
            self._asked = next(fit, following[0])
            self._home_at = self._clock() + HOME_S
