"""What requests and httpx share to reach agents that are plain HTTP servers: names, instances, circuits, retries.

`http://AGENT.outrider/path` is the agent's main port, `http://NAME.AGENT.outrider/path` its port of that name. Case
does not count in a URL's host, and `_` may be written `-`.
"""

from __future__ import annotations

import asyncio
import difflib
import time
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import urlsplit, urlunsplit

from outrider.calls.endpoint import named_port
from outrider.calls.plan import Plan
from outrider.calls.target import Peer
from outrider.discovery.api import alookup, lookup
from outrider.discovery.reader import Catalogue
from outrider.discovery.records import Instance
from outrider.errors import CallError, CallFailed, CallTimeout, CatalogueError, OutriderError, Overloaded, UnknownAgent

if TYPE_CHECKING:
    from outrider.calls.client import Client

SUFFIX = ".outrider"
# RFC 9110: to repeat these does no harm.
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
ELSEWHERE = frozenset({502, 503, 504})  # another instance may well answer


def is_agent(host: str | None) -> bool:
    """Whether the host of a URL is an agent's name."""
    return host is not None and host.lower().endswith(SUFFIX)


class Where(NamedTuple):
    """An agent, and the name of its port; empty for the main one."""

    agent: str
    port: str


class HttpGuard:
    """Of one client, with whose calls it shares deadlines, budgets and reports."""

    def __init__(self, client: Client, timeout_s: float | None) -> None:
        self.client = client
        self.timeout_s = timeout_s or client.settings.timeout_s
        self._catalogue: Catalogue | None = None
        self._names: dict[str, str] = {}

    def where(self, url: str) -> Where:
        """What a URL names. Raises UnknownAgent, and OutriderError for one with a number of a port."""
        parts = urlsplit(url)
        port, _, agent = str(parts.hostname).removesuffix(SUFFIX).rpartition(".")
        found = Where(self._agent(agent), port)
        if parts.port not in (None, 80):
            raise OutriderError(
                f"{url} numbers a port, which each instance chooses for itself",
                hint=f"http://{agent}{SUFFIX}/ is its main port, http://NAME.{agent}{SUFFIX}/ the one of that name",
            )
        return found

    def _agent(self, name: str) -> str:
        if found := self._names.get(_plain(name)):
            return found
        known = self._names = self._published()
        if found := known.get(_plain(name)):
            return found
        near = difflib.get_close_matches(_plain(name), known, 3)
        hint = f"did you mean {' or '.join(known[key] for key in near)}?" if near else ""
        raise UnknownAgent(f"no agent {name} in the fleet, so no http://{name}{SUFFIX}", hint=hint)

    def _published(self) -> dict[str, str]:
        """Plain names to names, as of now. Raises CatalogueError."""
        if self._catalogue is None:
            self._catalogue = Catalogue(self.client.runtime)
        self._catalogue.refresh()
        return {_plain(name): name for name in self._catalogue.names()}


class Exchange:
    """One request and its attempts, counted when it ends. `repeatable`: its body can be sent again."""

    def __init__(self, guard: HttpGuard, url: str, method: str, timeout_s: float | None, *, repeatable: bool) -> None:
        self._url = url
        self._where = guard.where(url)
        self._client = client = guard.client
        self._folder = str(client.runtime)
        self._outcome = "abandoned"
        method = method.upper()
        name = f"{method} {self._where.port}" if self._where.port else method
        target = client.http_target(*self._where)
        idempotent = repeatable and method in IDEMPOTENT
        self.plan = Plan(target, name, timeout_s or guard.timeout_s, idempotent, time.monotonic(), client.rng)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CallError):
            self._outcome = error.kind
        self._client.finish(self.plan, self._outcome)

    @property
    def left_s(self) -> float:
        """Seconds that this attempt may take."""
        return max(0.001, self.plan.attempt_until - time.monotonic())

    def next_url(self) -> str:
        """Where to send it now; waits where the plan says so. Raises CallTimeout, NoInstance and UnknownAgent."""
        while True:
            peer = self.plan.next_peer(lookup(self.plan.target.agent, runtime=self._folder), time.monotonic())
            if isinstance(peer, Peer):
                return url_at(self._url, peer.instance, self._where.port)
            time.sleep(peer)

    async def anext_url(self) -> str:
        """`next_url` for coroutines."""
        while True:
            answer = await alookup(self.plan.target.agent, runtime=self._folder)
            peer = self.plan.next_peer(answer, time.monotonic())
            if isinstance(peer, Peer):
                return url_at(self._url, peer.instance, self._where.port)
            await asyncio.sleep(peer)

    def failed(self, error: CallError) -> None:
        """This attempt gave no answer. Raises the error unless there may be another."""
        self.plan.failed(error, time.monotonic())

    def answered(self, status: int, *, full: bool) -> bool:
        """Whether this answer is the one to return; else another instance is asked. `full`: it said when to return."""
        now = time.monotonic()
        if status < 500:
            self.plan.succeeded(now)
            self._outcome = "ok"
            return True
        error: CallError = Overloaded("it is full") if full and status == 503 else CallFailed(f"HTTP status {status}")
        error.safe = False  # a plain server does not tell how far it got
        try:
            self.plan.failed(error, now, final=status not in ELSEWHERE)
        except CallError:
            self._outcome = error.kind
            return True
        return False


def unconnected() -> CallTimeout:
    """The error of an attempt whose time went by before it was sent."""
    error = CallTimeout("took no connection before the deadline")
    error.safe = True
    return error


def url_at(url: str, instance: Instance, port_name: str) -> str:
    """The same URL at an instance. Raises CatalogueError for a port that it does not have."""
    parts = urlsplit(url)
    port = named_port(instance, port_name)
    if not port:
        raise CatalogueError(
            f"{instance.instance} has no port {port_name or 'main'}; it has: {', '.join(instance.ports)}"
        )
    address = f"[{instance.address}]" if ":" in instance.address else instance.address
    return urlunsplit((parts.scheme, f"{address}:{port}", parts.path, parts.query, parts.fragment))


def _plain(name: str) -> str:
    return name.replace("_", "-").lower()
