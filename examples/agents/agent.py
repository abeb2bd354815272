"""What every sample agent answers: health, echo, work, chain and state; a model agent adds infer."""

from __future__ import annotations

import time

from chain import chain
from state_file import StateFile
from wire import Refused, parse_json
from work import work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from chain import Endpoint
    from settings import Settings
    from wire import Body, Head

    Infer = Callable[[dict[str, Any]], dict[str, Any]]

QUICK = ("/health", "/echo")


class Agent:
    """One agent. It is starting until `ready`; `detail` says what stands in the way if that never comes."""

    def __init__(self, settings: Settings) -> None:
        """Raises OSError or ValueError if its state folder cannot be used."""
        self.settings = settings
        self.ready = False
        self.draining = False
        self.detail = ""
        self.infer: Infer | None = None
        self._store = StateFile(settings.state)
        self._began = time.monotonic()
        self._requests = 0

    @property
    def status(self) -> str:
        """starting, ready, failed (it will not become ready; `detail` says why) or draining."""
        if self.draining:
            return "draining"
        if self.ready:
            return "ready"
        return "failed" if self.detail else "starting"

    def is_quick(self, head: Head, port: str) -> bool:
        """True if the answer takes microseconds, so that no thread is needed."""
        return port == "health" or head.path in QUICK or (head.path == "/state" and head.method == "GET")

    def handle(self, head: Head, body: bytes, port: str) -> tuple[int, Body]:
        """The answer to one request. Raises Refused."""
        if head.path == "/health":
            _only(head, "GET")
            return (200 if self.status == "ready" else 503), self.health()
        if port == "health":
            raise Refused(404, f"{head.path} is not served here", "this port answers GET /health only")
        if self.draining:
            raise Refused(503, f"{self.settings.instance} is stopping", "try another instance")
        self._requests += 1
        return 200, self._route(head, body)

    def health(self) -> dict[str, Any]:
        """The document of GET /health."""
        return {
            "status": self.status,
            "agent": self.settings.agent,
            "instance": self.settings.instance,
            "version": self.settings.version,
            "uptime_s": round(time.monotonic() - self._began, 3),
            "requests": self._requests,
            **({"model": self.settings.model} if self.settings.model else {}),
            **({"detail": self.detail} if self.detail else {}),
        }

    def _route(self, head: Head, body: bytes) -> Body:
        if head.path == "/state":
            _only(head, "GET", "POST")
            return self._store.snapshot() if head.method == "GET" else self._store.add(parse_json(body))
        if head.path not in ("/echo", "/work", "/chain", "/infer"):
            raise Refused(
                404, f"{head.path[:80]} is not served here", "POST /echo, /work, /chain, /infer; GET /health, /state"
            )
        _only(head, "POST")
        return body if head.path == "/echo" else self.answer(head.path[1:], parse_json(body))

    def answer(self, method: str, document: dict[str, Any]) -> dict[str, Any]:
        """What work, chain or infer make of a document, over HTTP or as a call. Raises Refused."""
        if method == "work":
            return work(document)
        if method == "chain":
            who = self.settings
            return chain(who.agent, who.instance, who.needs, document, locate)
        return self._infer(document)

    def _infer(self, document: dict[str, Any]) -> dict[str, Any]:
        if self.infer is None:
            if self.settings.model:
                raise Refused(503, self.detail or f"the model {self.settings.model} is not loaded yet")
            raise Refused(501, f"{self.settings.agent} has no model")
        began = time.perf_counter()
        try:
            answer = self.infer(document)
        except ValueError as error:
            raise Refused(422, str(error)) from error
        return {"model": self.settings.model, **answer, "ms": round((time.perf_counter() - began) * 1000, 3)}


def locate(name: str) -> list[Endpoint]:
    """Who serves an agent, best first, from this host's catalogue. Raises LookupError with the reason."""
    # Here and not above: it costs as much CPU as the rest of the start, and many agents never call another.
    import outrider

    try:
        answer = outrider.lookup(name)
    except outrider.OutriderError as error:
        raise LookupError(str(error)) from error
    return [(found.instance, found.address, found.port, "call" in found.ports) for found in answer.instances]


def _only(head: Head, *methods: str) -> None:
    if head.method not in methods:
        raise Refused(405, f"{head.path} does not take {head.method[:20]}", f"use {' or '.join(methods)}")
