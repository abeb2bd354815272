"""The Consul client: python-consul2 on our own transport, plus the calls and options it lacks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import consul.base
import msgspec
from msgspec import Struct

from outrider.errors import ConsulError
from outrider.registry.address import Address
from outrider.registry.capabilities import Capabilities, Version, capabilities_of, parse_version
from outrider.registry.fallback import Fallback
from outrider.registry.line import Line, Raw
from outrider.registry.transport import Params, Transport, error_of

T = TypeVar("T")
# Longer waits gain nothing, and a lost wake-up (seen in past versions) heals only after one.
WAIT_S, WAIT_MAX_S = 10.0, 30.0


class Reply(Struct, frozen=True):
    """An answer to a read. `index` is 0 where Consul sent none; 404 is a Reply too, with an empty body."""

    index: int
    body: bytes
    known_leader: bool
    last_contact_ms: int
    status: int
    age_s: float = 0.0


class _Session(Struct):
    ID: str


class Consul(consul.base.Consul):
    """python-consul2's client, `http` being our Transport. Thread-safe.

    others: agents of the same Consul that are asked when this one does not answer, unless `avoid` has their hosts
    """

    http: Transport

    def __init__(self, address: Address, *others: Address, avoid: Callable[[], Container[str]] = lambda: ()) -> None:
        self.address = address
        self._others, self._avoid = others, avoid
        try:
            with warnings.catch_warnings():
                # Its constructor warns of its own use of the legacy ACL, which we do not use.
                warnings.simplefilter("ignore", DeprecationWarning)
                super().__init__(host=address.host, port=address.port, scheme=address.scheme)
        except consul.base.ConsulException as error:
            # It reads CONSUL_HTTP_ADDR, though the address given here is the one that counts.
            raise ConsulError(str(error), hint="unset CONSUL_HTTP_ADDR, or write it as host:port") from error
        self.scheme = address.scheme
        self.token = None  # not CONSUL_HTTP_TOKEN of whoever started us: the transport adds the address's token

    def http_connect(self, *_args: Any, **_kwargs: Any) -> Transport:
        """Called by python-consul2's constructor, whatever arguments its version passes."""
        return Fallback([self.address, *self._others], self._avoid) if self._others else Transport(self.address)

    def get(
        self,
        path: str,
        *,
        index: int | None = None,
        wait_s: float | None = None,
        timeout_s: float | None = None,
        params: Params = None,
        line: Line | None = None,
    ) -> Reply:
        """Read `path`; with `index` as a blocking query of at most `wait_s`. Raises ConsulError, except for 404.

        `line`: the connection to use, which another thread may cut.
        """
        pairs = list(params.items()) if isinstance(params, Mapping) else list(params or ())
        if index is not None:
            wait_s = min(WAIT_S if wait_s is None else wait_s, WAIT_MAX_S)
            pairs += [("index", str(index)), ("wait", f"{round(wait_s * 1000)}ms")]
            # Consul adds up to a sixteenth of the wait so that watchers do not all return together.
            timeout_s = timeout_s or wait_s + wait_s / 16 + max(1.0, self.address.timeout_s)
        raw = self.http.request("GET", path, params=pairs, timeout_s=timeout_s, line=line)
        if raw.status >= 300 and raw.status != 404:
            raise error_of(raw, f"GET {path}")
        return _reply(raw, path)

    def put(
        self,
        path: str,
        body: bytes | None = None,
        *,
        params: Params = None,
        timeout_s: float | None = None,
        line: Line | None = None,
    ) -> bytes:
        """Write to `path`. Raises ConsulError with `status` unless it is done."""
        raw = self.http.request("PUT", path, params=params, body=body, timeout_s=timeout_s, line=line)
        if raw.status >= 300:
            raise error_of(raw, f"PUT {path}")
        return raw.body

    def delete(self, path: str, *, params: Params = None, timeout_s: float | None = None) -> bytes:
        """Delete `path`. Raises ConsulError with `status` unless it is done."""
        raw = self.http.request("DELETE", path, params=params, timeout_s=timeout_s)
        if raw.status >= 300:
            raise error_of(raw, f"DELETE {path}")
        return raw.body

    @cached_property
    def version(self) -> Version:
        """Of the Consul agent, asked once."""
        reply = self.get("/v1/agent/self")
        try:
            return parse_version(msgspec.json.decode(reply.body)["Config"]["Version"])
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConsulError(f"Consul at {self.address} does not tell its version") from error

    @property
    def capabilities(self) -> Capabilities:
        """What this version of Consul can do."""
        return capabilities_of(self.version)

    def create_session(
        self,
        name: str,
        *,
        ttl_s: float | None,
        lock_delay_s: float,
        node_checks: Sequence[str] = ("serfHealth",),
        service_checks: Sequence[str] = (),
        node: str = "",
        timeout_s: float | None = None,
        line: Line | None = None,
    ) -> str:
        """A session whose locks are released, not deleted, when it ends. python-consul2 cannot bind service checks.

        node: whose it is, if not the asked agent's
        """
        request: dict[str, Any] = {
            "Name": name,
            "Behavior": "release",
            "LockDelay": f"{round(lock_delay_s * 1000)}ms",
            "NodeChecks": list(node_checks),
            "ServiceChecks": [{"ID": check} for check in service_checks],
        }
        if node:
            request["Node"] = node
        if ttl_s:
            request["TTL"] = f"{round(ttl_s * 1000)}ms"
        body = msgspec.json.encode(request)
        return decode(self.put("/v1/session/create", body, timeout_s=timeout_s, line=line), _Session).ID


def _reply(raw: Raw, path: str) -> Reply:
    headers = raw.headers
    try:
        return Reply(
            index=int(headers.get("x-consul-index", 0)),
            body=raw.body if raw.status != 404 else b"",
            known_leader=headers.get("x-consul-knownleader", "true") == "true",
            last_contact_ms=int(headers.get("x-consul-lastcontact", 0)),
            status=raw.status,
            age_s=float(headers.get("age", 0)),
        )
    except ValueError as error:
        raise ConsulError(f"GET {path} is answered by something that is not Consul: {error}") from error


def decode(body: bytes, kind: type[T]) -> T:
    """The JSON of an answer. Raises ConsulError if it is something else."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise ConsulError(f"Consul's answer is not readable: {error}") from error


def connect(address: Address, *others: Address, avoid: Callable[[], Container[str]] = lambda: ()) -> Consul:
    """A client for `address`, as Consul says. Nothing is sent yet."""
    return Consul(address, *others, avoid=avoid)
