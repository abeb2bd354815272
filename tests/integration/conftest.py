"""A real Consul for tests: a fresh single server on free loopback ports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.errors import ConsulError
from outrider.registry.address import Address
from outrider.registry.client import Consul, connect


@pytest.fixture(scope="session")
def consul_binary() -> Path:
    """The Consul to test with. There must be one: a test that needs it fails without, it is not skipped."""
    if named := os.environ.get("OUTRIDER_TEST_CONSUL"):
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outrider" / "consul"
    if cached := sorted(cache.glob("*/consul")):
        return cached[-1]
    found = shutil.which("consul")
    assert found, "no Consul found: run `make demo` once, or set OUTRIDER_TEST_CONSUL"
    return Path(found)


def free_ports(count: int) -> list[int]:
    """Ports free now on loopback, for TCP and UDP alike."""
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


class ConsulServer:
    """A Consul server process that a test may stop, freeze and wipe."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary, self.folder = binary, folder
        names = ("http", "dns", "server", "serf_lan", "serf_wan", "grpc")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.node = "local"
        config = {
            "node_name": self.node,
            "data_dir": str(folder / "data"),
            "server": True,
            "bootstrap_expect": 1,
            "bind_addr": "127.0.0.1",
            "ui": True,
            "disable_update_check": True,
            "performance": {"raft_multiplier": 1},
            "ports": {**self.ports, "grpc": -1, "serf_wan": -1},
        }
        (folder / "consul.json").write_text(json.dumps(config))
        self.address = Address(port=self.ports["http"])
        self.http_url = str(self.address)
        self.client: Consul = connect(self.address)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it takes writes."""
        log = (self.folder / "consul.log").open("ab")
        self.process = subprocess.Popen(
            [self.binary, "agent", f"-config-file={self.folder / 'consul.json'}"], stdout=log, stderr=log
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self.client.put("/v1/kv/ready", b"1")
                return
            except ConsulError:
                time.sleep(0.05)
        raise AssertionError((self.folder / "consul.log").read_text()[-2000:])

    def stop(self) -> None:
        """Kill it; its data stays."""
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Stop it from running, its connections stay open."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Lose all its data; it must be stopped."""
        shutil.rmtree(self.folder / "data")


@pytest.fixture(scope="module")
def consul(consul_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulServer]:
    """A running server, shared by the tests of one module."""
    server = ConsulServer(consul_binary, tmp_path_factory.mktemp("consul"))
    try:
        server.start()
        yield server
    finally:
        server.stop()
