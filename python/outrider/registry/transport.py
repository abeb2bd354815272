"""The HTTP that python-consul2 speaks through: time-outs per call, the token in a header, typed errors.

python-consul2's own transport has one global time-out (a blocking query needs another than a write), puts the token
into the URL, where logs keep it, and lets `requests` errors through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import consul.base
import urllib3
from msgspec import Struct

from outrider.errors import ConsulDenied, ConsulError, ConsulUnreachable
from outrider.registry.address import Address

CONNECT_S = 1.0
Params = Mapping[str, Any] | list[tuple[str, Any]] | None


class Raw(Struct, frozen=True):
    """An HTTP answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Transport(consul.base.HTTPClient):
    """Pooled connections to one Consul agent. Thread-safe."""

    def __init__(self, address: Address) -> None:
        super().__init__(host=address.host, port=address.port, scheme=address.scheme)
        self.address = address
        tls: dict[str, Any] = {}
        if address.scheme == "https":
            tls = {
                "ca_certs": address.ca_file or None,
                "cert_file": address.cert_file or None,
                "key_file": address.key_file or None,
                "cert_reqs": "CERT_REQUIRED",
            }
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=16, retries=False, **tls)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Params = None,
        body: bytes | None = None,
        timeout_s: float | None = None,
    ) -> Raw:
        """One request. Raises ConsulUnreachable when nothing answers in time; any status is returned."""
        pairs = list(params.items()) if isinstance(params, Mapping) else list(params or ())
        token = next((value for name, value in pairs if name == "token"), None) or self.address.token
        url = self.uri(path, [(name, value) for name, value in pairs if name != "token"])
        headers = {"X-Consul-Token": token} if token else {}
        read_s = timeout_s or self.address.timeout_s
        timeout = urllib3.Timeout(connect=min(CONNECT_S, read_s), read=read_s)
        try:
            try:
                reply = self._pool.request(method, url, body=body, headers=headers, timeout=timeout)
            except urllib3.exceptions.ProtocolError:
                # A kept connection that the Consul agent has closed meanwhile, or its connection limit.
                if method != "GET":
                    raise
                reply = self._pool.request(method, url, body=body, headers=headers, timeout=timeout)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ConsulUnreachable(
                f"Consul at {self.address} does not answer: {_reason(error)}",
                hint="is the Consul agent running? `outrider doctor` looks",
            ) from error
        return Raw(reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.data)

    def close(self) -> None:
        """Drop every pooled connection."""
        self._pool.clear()

    def get(self, callback: Callable[[Any], Any], path: str, params: Params = None, headers: Any = None) -> Any:
        """python-consul2's GET."""
        return self._call(callback, "GET", path, params)

    def put(
        self, callback: Callable[[Any], Any], path: str, params: Params = None, data: Any = "", headers: Any = None
    ) -> Any:
        """python-consul2's PUT."""
        return self._call(callback, "PUT", path, params, data)

    def post(
        self, callback: Callable[[Any], Any], path: str, params: Params = None, data: Any = "", headers: Any = None
    ) -> Any:
        """python-consul2's POST."""
        return self._call(callback, "POST", path, params, data)

    def delete(
        self, callback: Callable[[Any], Any], path: str, params: Params = None, data: Any = "", headers: Any = None
    ) -> Any:
        """python-consul2's DELETE."""
        return self._call(callback, "DELETE", path, params, data)

    def _call(self, callback: Callable[[Any], Any], method: str, path: str, params: Params, data: Any = "") -> Any:
        body = data.encode() if isinstance(data, str) else data
        raw = self.request(method, path, params=params, body=body or None)
        if raw.status >= 400 and raw.status != 404:
            raise error_of(raw, f"{method} {path}")
        # python-consul2 looks its headers up by these names.
        headers = {
            "-".join(part.capitalize() for part in name.split("-")): value for name, value in raw.headers.items()
        }
        return callback(consul.base.Response(raw.status, headers, raw.body.decode(errors="replace"), raw.body))


def error_of(raw: Raw, what: str) -> ConsulError:
    """The typed error of an answer of 400 or above."""
    text = raw.body.decode(errors="replace").strip()[:300]
    if raw.status in (401, 403):
        return ConsulDenied(f"Consul refuses {what}: {text}", status=raw.status, hint="the token lacks a right")
    return ConsulError(f"Consul answers {what} with {raw.status}: {text}", status=raw.status)


def _reason(error: BaseException) -> str:
    """The innermost plain reason: urllib3 wraps it several times."""
    inner = getattr(error, "reason", None) or error.__cause__ or error
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "connection refused"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "timed out"
    return getattr(inner, "strerror", None) or str(inner).rsplit(": ", 1)[-1] or type(inner).__name__
