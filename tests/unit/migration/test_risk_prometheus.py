"""Calls of all hosts as Prometheus answers; whatever it answers else is one error that says so."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from outrider.errors import OutriderError
from outrider.migration.risk.prometheus import CALLS, FAILED, HOSTS, PEAK, RATE, Prometheus

Serve = Callable[[Callable[[str], tuple[int, str]]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """An HTTP server that answers queries; returns its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[str], tuple[int, str]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                status, body = answer(parse_qs(parts.query)["query"][0]) if parts.path == "/api/v1/query" else (404, "")
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def series(label: str, values: dict[str, str]) -> str:
    result = [{"metric": {label: name}, "value": [1.0, value]} for name, value in values.items()]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": [*result, _UNLABELLED]}})


_UNLABELLED = {"metric": {}, "value": [1.0, "7"]}
FULL = {
    HOSTS: ("host", {"one": "3", "two": "4"}),
    RATE: ("target", {"A": "12.5", "B": "NaN"}),
    CALLS: ("target", {"A": "1000"}),
    FAILED: ("target", {"A": "10"}),
    PEAK: ("target", {"A": "40"}),
}


def test_each_agent_has_its_calls_and_one_that_is_not_called_has_none(serve: Serve) -> None:
    found = Prometheus(serve(lambda query: (200, series(*FULL[query])))).traffic(("A", "B", "C"), {"one", "two"})
    traffic = found["A"]
    assert (traffic.per_s, traffic.calls, traffic.failed, traffic.peak_per_s, traffic.partial) == (
        12.5, 1000, 10, 40, "")  # fmt: skip
    assert [(found[name].per_s, found[name].peak_per_s) for name in ("B", "C")] == [(0, 0), (0, 0)]


def test_a_host_that_it_does_not_know_makes_it_partial(serve: Serve) -> None:
    found = Prometheus(serve(lambda query: (200, series(*FULL[query])))).traffic(("A",), {"one", "three"})
    assert found["A"].partial == "Prometheus knows nothing of three"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, series("host", {}), "knows no shim"),
        (503, "", "answers with 503"),
        (200, "<html>", "cannot be asked"),
        (200, series("host", {"one": "many"}), "cannot be asked"),
    ],
)
def test_any_other_answer_is_an_error(serve: Serve, status: int, body: str, said: str) -> None:
    with pytest.raises(OutriderError, match=said):
        Prometheus(serve(lambda query: (status, body))).traffic(("A",), set())


def test_an_address_that_is_none_or_that_nobody_serves_is_refused() -> None:
    for address in ("witness:9090", "ftp://witness", "http://"):
        with pytest.raises(OutriderError, match="no address of Prometheus"):
            Prometheus(address)
    with pytest.raises(OutriderError, match="cannot be asked"):
        Prometheus("http://127.0.0.1:1").traffic(("A",), set())
