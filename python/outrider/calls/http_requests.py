"""A `requests` adapter that resolves agents' names."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from outrider.calls.http_guard import Exchange, HttpGuard, is_agent, unconnected
from outrider.errors import CallError, CallTimeout, ConnectionLost

MOST_INSTANCES = 1000  # whose connections are kept
MOST_IDLE = 64  # to each of them
CHUNK = 1 << 16

# What says something of the instance. Others are raised as they are: a header that cannot be sent is the caller's.
Trouble = (
    requests.ConnectionError,
    requests.Timeout,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.TimeoutError,
)


class AgentAdapter(HTTPAdapter):
    """Mounted for http://; other hosts than agents are reached as ever. Raises what requests raises."""

    def __init__(self, guard: HttpGuard) -> None:
        self._guard = guard
        super().__init__(pool_connections=MOST_INSTANCES, pool_maxsize=MOST_IDLE)

    def send(
        self, request: requests.PreparedRequest, stream: bool = False, timeout: Any = None, *args: Any, **options: Any
    ) -> requests.Response:
        """As HTTPAdapter's; `timeout` bounds everything: retries, and the body unless it is streamed."""
        url = str(request.url)
        if not is_agent(urlsplit(url).hostname):
            return super().send(request, stream, timeout, *args, **options)
        repeatable = request.body is None or isinstance(request.body, str | bytes)
        try:
            with Exchange(self._guard, url, str(request.method), _seconds(timeout), repeatable=repeatable) as exchange:
                response = self._send(request, exchange, stream)
        except CallError as error:
            kind = requests.Timeout if isinstance(error, CallTimeout) else requests.ConnectionError
            raise kind(str(error), request=request) from error
        # Redirects, cookies and answers to a challenge go by these, and so to the agent instead of the instance.
        response.url, response.request = url, request
        return response

    def _send(self, request: requests.PreparedRequest, exchange: Exchange, stream: bool) -> requests.Response:
        while True:
            attempt = request.copy()
            attempt.url = exchange.next_url()
            attempt.headers["traceparent"] = exchange.plan.trace
            try:
                # No proxy: it would be asked instead of the instance, and get the blame for it.
                response = super().send(attempt, stream, exchange.left_s)
                if not stream:
                    _read(response, exchange.plan.attempt_until)
            except Trouble as error:
                exchange.failed(_call_error(error))
                continue
            except BaseException:
                exchange.plan.abandon(time.monotonic())
                raise
            if exchange.answered(response.status_code, full="Retry-After" in response.headers):
                return response
            response.close()


def _read(response: requests.Response, until: float) -> None:
    """The whole body by `until`: requests itself would wait anew for each piece of it."""
    raw, parts = response.raw, []
    read = getattr(raw, "read1", raw.read)  # urllib3 < 2.3 has no read1
    try:
        while part := read(CHUNK, decode_content=True):
            parts.append(part)
            if time.monotonic() > until:
                raw.close()
                raise requests.Timeout
    except urllib3.exceptions.DecodeError as error:
        raise requests.exceptions.ContentDecodingError(error) from error
    response._content, response._content_consumed = b"".join(parts), True  # type: ignore[attr-defined]


def _call_error(error: Exception) -> CallError:
    if isinstance(error, requests.ConnectTimeout):
        return unconnected()
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return CallTimeout("no answer before the deadline")
    # urllib3 says so where the connection was never made.
    return ConnectionLost(f"the connection broke: {error}", safe="NewConnectionError" in repr(error))


def _seconds(timeout: Any) -> float | None:
    """requests takes a number, or one for the connection and one for the answer."""
    if isinstance(timeout, tuple):
        parts = [part for part in timeout if part is not None]
        return sum(parts) if parts else None
    return timeout  # type: ignore[no-any-return]
