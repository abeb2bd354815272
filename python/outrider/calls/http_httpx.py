"""`httpx` transports that resolve agents' names. They are mounted for agents only."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import httpx

from outrider.calls.http_guard import Exchange, HttpGuard, unconnected
from outrider.errors import CallError, CallTimeout, ConnectionLost

PATTERN = "http://*.outrider"
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=1000)

# What says something of the instance. Others are raised as they are: a header that cannot be sent is the caller's.
Trouble = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)


class AgentTransport(httpx.BaseTransport):
    """Raises what httpx raises."""

    def __init__(self, guard: HttpGuard) -> None:
        self._guard = guard
        self._inner = httpx.HTTPTransport(limits=LIMITS)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """As HTTPTransport's; the read timeout bounds everything, retries and the body included."""
        try:
            with _exchange(self._guard, request) as exchange:
                while True:
                    attempt = _attempt(request, exchange, exchange.next_url())
                    try:
                        response = self._inner.handle_request(attempt)
                    except Trouble as error:
                        exchange.failed(_call_error(error))
                        continue
                    if exchange.answered(response.status_code, full="Retry-After" in response.headers):
                        response.stream = _Body(response, exchange.plan.until)
                        return response
                    response.close()
        except CallError as error:
            raise _raised(error, request) from error

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class AsyncAgentTransport(httpx.AsyncBaseTransport):
    """AgentTransport for coroutines."""

    def __init__(self, guard: HttpGuard) -> None:
        self._guard = guard
        self._inner = httpx.AsyncHTTPTransport(limits=LIMITS)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As AgentTransport's."""
        try:
            with _exchange(self._guard, request) as exchange:
                while True:
                    attempt = _attempt(request, exchange, await exchange.anext_url())
                    try:
                        response = await self._inner.handle_async_request(attempt)
                    except Trouble as error:
                        exchange.failed(_call_error(error))
                        continue
                    if exchange.answered(response.status_code, full="Retry-After" in response.headers):
                        response.stream = _AsyncBody(response, exchange.plan.until)
                        return response
                    await response.aclose()
        except CallError as error:
            raise _raised(error, request) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Body(httpx.SyncByteStream):
    """A body that ends with the request's time: httpx itself would wait anew for each piece of it."""

    def __init__(self, response: httpx.Response, until: float) -> None:
        assert isinstance(response.stream, httpx.SyncByteStream)
        self._inner = response.stream
        self._until = until

    def __iter__(self) -> Iterator[bytes]:
        for part in self._inner:
            _check(self._until)
            yield part

    def close(self) -> None:
        self._inner.close()


class _AsyncBody(httpx.AsyncByteStream):
    """_Body for coroutines."""

    def __init__(self, response: httpx.Response, until: float) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._inner = response.stream
        self._until = until

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._inner:
            _check(self._until)
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()


def _check(until: float) -> None:
    if time.monotonic() > until:
        raise httpx.ReadTimeout("the body was not over before the deadline")


def _exchange(guard: HttpGuard, request: httpx.Request) -> Exchange:
    timeout_s = request.extensions.get("timeout", {}).get("read")
    repeatable = isinstance(request.stream, httpx.ByteStream)
    return Exchange(guard, str(request.url), request.method, timeout_s, repeatable=repeatable)


def _attempt(request: httpx.Request, exchange: Exchange, url: str) -> httpx.Request:
    headers = request.headers.copy()
    if headers["Host"] == request.url.netloc.decode():
        # A server that looks at it knows its address, not its agent's name.
        headers["Host"] = httpx.URL(url).netloc.decode()
    headers["traceparent"] = exchange.plan.trace
    timeout = dict.fromkeys(("connect", "read", "write", "pool"), exchange.left_s)
    extensions = {**request.extensions, "timeout": timeout}
    return httpx.Request(request.method, url, headers=headers, stream=request.stream, extensions=extensions)


def _raised(error: CallError, request: httpx.Request) -> httpx.TransportError:
    kind = httpx.ReadTimeout if isinstance(error, CallTimeout) else httpx.ConnectError
    return kind(str(error), request=request)


def _call_error(error: httpx.TransportError) -> CallError:
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return unconnected()
    if isinstance(error, httpx.TimeoutException):
        return CallTimeout("no answer before the deadline")
    return ConnectionLost(f"the connection broke: {error}", safe=isinstance(error, httpx.ConnectError))
