"""Between a shim and its Consul: stops at each entry of a migration's journal, or answers like one without a leader."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTRY = "/journal/"
Hook = Callable[[str, bool], bool]


class Relay:
    """Passes requests on to Consul's port. `hook` is called with the name of what an entry begins, or how it ends, and
    whether it is written yet; if it says no before that, it never is.

    leaderless: nothing is passed on, and the paths that are asked for are kept in `asked`
    """

    def __init__(self, port: int, hook: Hook = lambda name, written: True) -> None:
        relay = self
        self.leaderless = False
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._pass()

            def do_PUT(self) -> None:
                self._pass()

            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if relay.leaderless:
                    relay.asked.append(self.path)
                    self.send_error(500, "No cluster leader")
                    return
                name = entry_of(body) if self.path.startswith("/v1/txn") else ""
                if name and not hook(name, False):
                    self.close_connection = True
                    return
                line = http.client.HTTPConnection("127.0.0.1", port)
                try:
                    line.request(self.command, self.path, body, dict(self.headers))
                    answer = line.getresponse()
                    said, status, headers = answer.read(), answer.status, answer.getheaders()
                finally:
                    line.close()
                if name and status == 200:
                    hook(name, True)
                self.send_response(status)
                for key, value in headers:
                    if key.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: Any) -> None:
                pass

            def handle(self) -> None:
                with contextlib.suppress(OSError, http.client.HTTPException):  # the shim, or Consul, is gone
                    super().handle()

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """No request is passed on any more."""
        self._server.shutdown()
        self._server.server_close()


def entry_of(transaction: bytes) -> str:
    """The step that an entry in it begins, else what it says; empty if it has none."""
    for operation in json.loads(transaction):
        written = operation.get("KV", {})
        if ENTRY in written.get("Key", "") and written.get("Verb") == "cas":
            entry = json.loads(base64.b64decode(written["Value"]))
            return str(entry.get("step") or entry["what"])
    return ""
