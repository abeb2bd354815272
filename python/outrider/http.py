"""HTTP to agents that are plain HTTP servers, by name: `http://AGENT.outrider/path`.

The instance is found in the catalogue, chosen and circuit-broken as `outrider.call` does it; the timeout is for
everything, retries and body included, and never more than is left to the call that is being worked on.

    session = outrider.http.session()
    session.post("http://MemoryClient.outrider/work", json={"n": 100}, timeout=0.5)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outrider.errors import OutriderError

if TYPE_CHECKING:
    import httpx
    import requests

    from outrider.calls.client import Client
    from outrider.calls.http_guard import HttpGuard

__all__ = ["async_client", "client", "session"]


def session(*, timeout: float | None = None, calls: Client | None = None) -> requests.Session:
    """A `requests.Session`. `timeout`: seconds of a request that names none. Raises OutriderError without requests."""
    try:
        from outrider.calls.http_requests import AgentAdapter
    except ImportError as error:
        raise _missing("requests") from error
    import requests

    made = requests.Session()
    made.mount("http://", AgentAdapter(_guard(calls, timeout)))
    return made


def client(*, timeout: float | None = None, calls: Client | None = None, **options: Any) -> httpx.Client:
    """A `httpx.Client`; `options` are its own. Raises OutriderError without httpx."""
    try:
        from outrider.calls.http_httpx import PATTERN, AgentTransport
    except ImportError as error:
        raise _missing("httpx") from error
    import httpx

    guard = _guard(calls, timeout)
    mounts = {**options.pop("mounts", {}), PATTERN: AgentTransport(guard)}
    return httpx.Client(mounts=mounts, timeout=guard.timeout_s, **options)


def async_client(*, timeout: float | None = None, calls: Client | None = None, **options: Any) -> httpx.AsyncClient:
    """A `httpx.AsyncClient`; `options` are its own. Raises OutriderError without httpx."""
    try:
        from outrider.calls.http_httpx import PATTERN, AsyncAgentTransport
    except ImportError as error:
        raise _missing("httpx") from error
    import httpx

    guard = _guard(calls, timeout)
    mounts = {**options.pop("mounts", {}), PATTERN: AsyncAgentTransport(guard)}
    return httpx.AsyncClient(mounts=mounts, timeout=guard.timeout_s, **options)


def _guard(calls: Client | None, timeout_s: float | None) -> HttpGuard:
    from outrider.calls.client import default
    from outrider.calls.http_guard import HttpGuard

    return HttpGuard(calls or default(), timeout_s)


def _missing(package: str) -> OutriderError:
    return OutriderError(f"{package} is not installed", hint="pip install 'outrider[http]'")
