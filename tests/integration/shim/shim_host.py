"""One host with a real shim, a real Consul and small agents, for tests that hurt one of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from msgspec.structs import replace

from outrider.discovery.reader import Catalogue
from outrider.discovery.records import Instance
from outrider.errors import OutriderError
from outrider.fleet.spec import Agent, Host
from outrider.host.reports import InstanceReport, StatusReport
from outrider.registry import kv, services
from outrider.registry.layout import FLEET, HOSTS, PLACEMENT, AgentDoc, HostDoc, Placed, PlacementDoc

T = TypeVar("T")
NAMES = ("Alpha", "Beta", "Gamma")
OUTRIDERD = Path(sys.executable).with_name("outriderd")
SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["OUTRIDER_PORT"])), Handler).serve_forever()
"""
SMALL = Agent(command=(sys.executable, "-c", SERVER), ports={"main": "auto"}, stop_timeout_s=1.0)


def a_free_port() -> int:
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class ShimHost:
    """A host of the fleet `test`. The shim may be killed and started again; `close` ends every process it left."""

    def __init__(self, consul: Any, folder: Path) -> None:
        self.consul, self.folder = consul, folder
        self.docs: dict[str, tuple[AgentDoc, PlacementDoc]] = {}
        self.small = SMALL
        self.shim: subprocess.Popen[bytes] | None = None
        self.log = folder / "shim.log"
        self.config = folder / "outriderd.toml"
        self.port = a_free_port()
        self.configure(free_ports=True)

    def configure(self, *, free_ports: bool, tables: str = "") -> None:
        """Write the shim's configuration; `tables` are added to it."""
        folders = "".join(f'{name}_dir = "{self.folder / name}"\n' for name in ("runtime", "state", "log"))
        self.config.write_text(
            f'fleet = "test"\nhost = "local"\n{folders}free_ports = {str(free_ports).lower()}\nneeds_wait_s = 2.0\n'
            f"http_port = {self.port}\n[consul]\nport = {self.consul.ports['http']}\n{tables}"
        )

    def publish(self, agents: dict[str, Agent], version: str = "v1") -> None:
        """Write both documents of each agent, one instance each, over whatever is there."""
        for name, agent in agents.items():
            placement = PlacementDoc(name, (Placed(f"{name}-1", "local", version),))
            self.docs[name] = (AgentDoc(name, "test", agent, version), placement)
        self.write()

    def write(self) -> None:
        """Write the documents known here to Consul."""
        changes = []
        for name, docs in self.docs.items():
            for key, doc in zip((FLEET + name, PLACEMENT + name), docs, strict=True):
                changes.append(kv.Change(key, doc, kv.get_doc(self.consul.client, key, type(doc))[1]))
        kv.put_docs(self.consul.client, changes)

    def unplace(self, name: str) -> None:
        """No host runs the agent any more."""
        agent, placement = self.docs[name]
        self.docs[name] = (agent, replace(placement, instances=()))
        self.write()

    def start(self) -> None:
        """Start a shim; it is not yet ready when this returns."""
        with self.log.open("ab") as log:
            self.shim = subprocess.Popen([OUTRIDERD, "--config", self.config], stdout=log, stderr=log)

    def end(self, number: int) -> None:
        """Send the shim a signal and wait until it is gone."""
        assert self.shim
        self.shim.send_signal(number)
        self.shim.wait(timeout=15)

    def request(self, method: str, path: str) -> bytes:
        """One request on the shim's socket. Raises CalledProcessError if it is refused."""
        command = ["curl", "-sf", "--max-time", "20", "-X", method, "--unix-socket"]
        socket_path = str(self.folder / "runtime" / "outriderd.sock")
        return subprocess.run([*command, socket_path, f"http://shim{path}"], check=True, capture_output=True).stdout

    def report(self, name: str) -> InstanceReport | None:
        """What the shim says of the one instance of an agent; None if it says nothing."""
        try:
            body = self.request("GET", "/v1/status")
        except subprocess.CalledProcessError:
            return None
        found = msgspec.json.decode(body, type=StatusReport).instances
        return next((report for report in found if report.instance == f"{name}-1"), None)

    def served(self, name: str) -> tuple[Instance, ...]:
        """Who a lookup names."""
        try:
            return Catalogue(self.folder / "runtime").lookup(name).instances
        except OutriderError:
            return ()

    def registered(self) -> dict[str, tuple[str, str]]:
        """Status and output of every instance's check, by instance, from the Consul agent."""
        checks = msgspec.json.decode(self.consul.client.get("/v1/agent/checks").body)
        return {c["ServiceID"]: (c["Status"], c["Output"]) for c in checks.values() if c["ServiceID"]}

    def in_catalog(self, instance: str) -> str:
        """The output of a critical instance's check as every host reads it; empty if it is not critical."""
        states = services.critical(self.consul.client.get("/v1/health/state/critical"))
        return next((state.output for state in states if state.service_id == instance), "")

    def services(self) -> dict[str, services.Service]:
        """Everything registered with the Consul agent."""
        return services.local_services(self.consul.client)

    def passing(self, *names: str) -> bool:
        """True if each is served and passes in Consul."""
        checks = self.registered()
        return all(checks.get(f"{name}-1", ("",))[0] == "passing" and self.served(name) for name in names)

    def pid(self, name: str) -> int:
        """Of the running instance."""
        report = self.report(name)
        assert report
        assert report.pid
        return report.pid

    def wait(self, what: Callable[[], T], within_s: float = 60.0) -> T:
        """What `what` returns, once it is true."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            if found := what():
                return found
            time.sleep(0.01)
        raise AssertionError(f"not within {within_s} s; the shim's log:\n{self.log.read_text()[-3000:]}")

    def close(self) -> None:
        """End the shim and every agent that carries this folder in its environment."""
        if self.shim and self.shim.poll() is None:
            self.shim.kill()
            self.shim.wait()
        for pid in self.agents():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def agents(self) -> list[int]:
        """Processes that the shim of this folder started and that still run."""
        mark = f"OUTRIDER_RUNTIME={self.folder / 'runtime'}".encode()
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in environ.read_bytes().split(b"\0"):
                    found.append(int(environ.parent.name))
        return found


@pytest.fixture
def host(consul: Any) -> Iterator[ShimHost]:
    """A host whose documents and shim are still to come."""
    folder = Path(tempfile.mkdtemp(prefix="shim-"))
    made = ShimHost(consul, folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def hosts(consul: Any, consul_binary: Path, tmp_path: Path) -> Iterator[tuple[ShimHost, ShimHost]]:
    """`local` is a Consul server, `other` a client of it."""
    join = {"server": False, "bootstrap_expect": 0, "ui": False, "node_name": "other"}
    join["retry_join"] = [f"127.0.0.1:{consul.ports['serf_lan']}"]
    client = type(consul)(consul_binary, tmp_path / "client", join)
    made = []
    try:
        client.start()
        for name, server in (("local", consul), ("other", client)):
            (tmp_path / name).mkdir()
            host = ShimHost(server, tmp_path / name)
            host.config.write_text(host.config.read_text().replace('host = "local"', f'host = "{name}"'))
            made.append(host)
            kv.put_docs(consul.client, [kv.Change(HOSTS + name, HostDoc(Host(name)), 0)])
        yield made[0], made[1]
    finally:
        for host in made:
            host.close()
        client.stop()


@pytest.fixture
def serving(host: ShimHost) -> ShimHost:
    """A host whose three agents pass."""
    host.publish(dict.fromkeys(NAMES, SMALL))
    host.start()
    host.wait(lambda: host.passing(*NAMES))
    return host
