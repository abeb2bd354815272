"""A small HTTP server that answers as Consul would on its bad days, which a real one cannot be made to have."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from msgspec import Struct, field

from outrider.registry.address import Address


class Asked(Struct):
    """A request as it arrived. `port`: the client's, so that requests on one connection can be told."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    port: int

    @property
    def params(self) -> dict[str, list[str]]:
        """The query, by name."""
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)


class Answer(Struct):
    """What to answer. `raw` replaces all of it; `hang_up` closes afterwards without saying so."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, Any] = field(default_factory=dict)
    raw: bytes | None = None
    hang_up: bool = False


class Server(ThreadingHTTPServer):
    """Takes as many connections at once as a test makes."""

    request_queue_size = 128
    daemon_threads = True


class FakeConsul:
    """Calls `answer` for each request, in the thread of its connection, so that it may block."""

    def __init__(self, answer: Callable[[Asked], Answer], context: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(OSError):
                    super().handle_one_request()

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, body, self.client_address[1])
                fake.asked.append(asked)
                reply = answer(asked)
                if reply.raw is not None:
                    self.wfile.write(reply.raw)
                else:
                    self.send_response(reply.status)
                    for name, value in {"Content-Length": len(reply.body), **reply.headers}.items():
                        self.send_header(name, str(value))
                    self.end_headers()
                    self.wfile.write(reply.body)
                self.close_connection = reply.hang_up or reply.raw is not None

            def __getattr__(self, name: str) -> Callable[[], None]:
                if name in ("do_GET", "do_PUT", "do_POST", "do_DELETE"):
                    return self._answer
                raise AttributeError(name)

            def log_message(self, format: str, *args: Any) -> None:
                """Silence."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = Address(port=self._server.server_address[1], scheme="https" if context else "http")
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def fake_consul() -> Iterator[Callable[..., FakeConsul]]:
    """Start a FakeConsul for an answer function."""
    with contextlib.ExitStack() as stack:

        def start(answer: Callable[[Asked], Answer], context: ssl.SSLContext | None = None) -> FakeConsul:
            fake = FakeConsul(answer, context)
            stack.callback(fake.close)
            return fake

        yield start


@pytest.fixture
def answers() -> Callable[..., Callable[[Asked], Answer]]:
    """An answer function that always says the same; `before` is called first and may block."""

    def make(before: Callable[[], object] = lambda: None, **fields: Any) -> Callable[[Asked], Answer]:
        def answer(_: Asked) -> Answer:
            before()
            return Answer(**{"body": b"{}", **fields})

        return answer

    return make
