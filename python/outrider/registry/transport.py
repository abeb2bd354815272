"""The HTTP that python-consul2 speaks through: time-outs per call, the token in a header, typed errors.

python-consul2's own transport has one global time-out (a blocking query needs another than a write), puts the token
into the URL, where logs keep it, and lets `requests` errors through.
"""

from __future__ import annotations

import contextlib
import ssl
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

import consul.base

from outrider.errors import ConsulConflict, ConsulDenied, ConsulError
from outrider.registry.address import Address
from outrider.registry.line import Line, Raw

HEADER = "X-Consul-Token"
# Consul closes what goes beyond 200 connections of one address without a word, and all of a host share loopback.
KEPT_CONNECTIONS = 16
Params = Mapping[str, Any] | list[tuple[str, Any]] | None


class Transport(consul.base.HTTPClient):
    """Kept connections to one Consul agent. Thread-safe: each request has a connection for itself."""

    def __init__(self, address: Address) -> None:
        super().__init__(host=address.host, port=address.port, scheme=address.scheme)
        self.address = address
        tls_context(address)  # what cannot be used is refused at once
        self._idle: list[Line] = []

    def line(self, old: Line | None = None) -> Line:
        """A connection for one caller alone, to be given to `request`; the `old` one while that is still right.

        Raises ConsulError for files that cannot be used: they may have been replaced since.
        """
        return old if old and not old.is_cut else Line(self.address, tls_context(self.address))

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
        """One request. Raises ConsulUnreachable when nothing answers in time; any status is returned.

        After a time-out of a write nobody knows whether it was done.
        """
        pairs = list(params.items()) if isinstance(params, Mapping) else list(params or ())
        asked = next((str(value) for name, value in pairs if name == "token" and value), "")
        target = _target(path, [(name, value) for name, value in pairs if name != "token"])
        token = token or asked or self.address.token
        headers = {HEADER: token} if token else {}
        limit_s = self.address.timeout_s if timeout_s is None else timeout_s
        if line:
            return line.request(method, target, headers=headers, body=body, timeout_s=limit_s)
        pooled = self._take()
        try:
            return pooled.request(method, target, headers=headers, body=body, timeout_s=limit_s)
        finally:
            self._give_back(pooled)

    def close(self) -> None:
        """Drop every connection that is not in use."""
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()

    def get(self, callback: Callable[[Any], Any], path: str, params: Params = None, headers: Any = None) -> Any:
        """python-consul2's GET."""
        return self._call(callback, "GET", path, params, headers)

    def put(
        self, callback: Callable[[Any], Any], path: str, params: Params = None, data: Any = "", headers: Any = None
    ) -> Any:
        """python-consul2's PUT."""
        return self._call(callback, "PUT", path, params, headers, data)

    def post(
        self, callback: Callable[[Any], Any], path: str, params: Params = None, data: Any = "", headers: Any = None
    ) -> Any:
        """python-consul2's POST."""
        return self._call(callback, "POST", path, params, headers, data)

    def delete(
        self, callback: Callable[[Any], Any], path: str, params: Params = None, data: Any = "", headers: Any = None
    ) -> Any:
        """python-consul2's DELETE."""
        return self._call(callback, "DELETE", path, params, headers, data)

    def _call(
        self, callback: Callable[[Any], Any], method: str, path: str, params: Params, headers: Any, data: Any = ""
    ) -> Any:
        body = data.encode() if isinstance(data, str) else data
        token = (headers or {}).get(HEADER, "")
        raw = self.request(method, path, params=params, body=body or None, token=token)
        if raw.status >= 300 and raw.status != 404:
            raise error_of(raw, f"{method} {path}")
        # python-consul2 looks its headers up by these names.
        names = {"-".join(part.capitalize() for part in name.split("-")): name for name in raw.headers}
        shown = {
            name.replace("Knownleader", "KnownLeader").replace("Lastcontact", "LastContact"): raw.headers[lower]
            for name, lower in names.items()
        }
        return callback(consul.base.Response(raw.status, shown, raw.body.decode(errors="replace"), raw.body))

    def _take(self) -> Line:
        try:
            return self._idle.pop()
        except IndexError:
            return self.line()

    def _give_back(self, line: Line) -> None:
        if len(self._idle) < KEPT_CONNECTIONS:
            self._idle.append(line)
        else:
            line.close()


def tls_context(address: Address) -> ssl.SSLContext | None:
    """What https needs, None for http. Raises ConsulError naming the file that cannot be used."""
    if address.scheme == "http":
        return None
    used = address.ca_file
    try:
        context = ssl.create_default_context(cafile=address.ca_file or None)
        if address.cert_file:
            used = f"{address.cert_file} with {address.key_file}" if address.key_file else address.cert_file
            context.load_cert_chain(address.cert_file, address.key_file or None)
    except OSError as error:
        raise ConsulError(f"TLS for Consul at {address}: {used}: {error.strerror or error}") from error
    return context


def error_of(raw: Raw, what: str) -> ConsulError:
    """The typed error of an answer that is no success."""
    text = raw.body.decode(errors="replace").strip()[:300]
    if raw.status in (401, 403):
        return ConsulDenied(f"Consul refuses {what}: {text}", status=raw.status, hint="the token lacks a right")
    if raw.status == 409:
        return ConsulConflict(f"Consul answers {what} with 409: {text}", status=409)
    return ConsulError(f"Consul answers {what} with {raw.status}: {text}", status=raw.status)


def _target(path: str, pairs: list[tuple[str, Any]]) -> str:
    query = urllib.parse.urlencode(pairs)
    return urllib.parse.quote(path, safe="/:") + (f"?{query}" if query else "")
