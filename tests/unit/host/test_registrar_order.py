"""What Consul hears last of an instance is what is true, however slow an earlier write was."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from outrider.host.registrar import Registrar
from outrider.registry.address import Address
from outrider.registry.client import connect
from outrider.registry.services import Service

ECHO = Service("Echo-1", "Echo", "10.0.0.1", 7200, ("outrider",), {"host": "gpu1"}, "outrider:Echo-1", "passing", "ok")


class SlowConsul:
    """Takes every write; the first failure it hears is answered only when `go_on` is set."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.stuck, self.go_on = threading.Event(), threading.Event()
        consul = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
                if self.path.startswith("/v1/agent/check/update/"):
                    if body["Status"] == "critical" and not consul.go_on.is_set():
                        consul.stuck.set()
                        consul.go_on.wait(0.9)
                    consul.heard.append(body["Status"])
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def slow() -> Iterator[SlowConsul]:
    made = SlowConsul()
    yield made
    made.server.shutdown()
    made.server.server_close()


async def test_a_slow_failure_does_not_overtake_the_recovery(slow: SlowConsul) -> None:
    with ThreadPoolExecutor(4) as executor:
        consul = connect(Address(port=slow.server.server_port))
        registrar = Registrar(consul, executor, "gpu1", lambda: ())
        registrar.start()
        registrar.want(ECHO)
        assert await registrar.settled(5)
        registrar.want(replace(ECHO, status="critical", output="exited: killed"))
        await asyncio.to_thread(slow.stuck.wait, 5)
        registrar.want(ECHO)
        # Time for a second worker to send the recovery, which it must not.
        await asyncio.sleep(0.2)
        assert slow.heard == ["passing"]
        slow.go_on.set()
        assert await registrar.settled(5)
        assert slow.heard == ["passing", "critical", "passing"]
        await registrar.stop()
