"""A real Consul for tests: single servers on free loopback ports, configured like production's."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from outrider.errors import ConsulError
from outrider.registry.address import Address
from outrider.registry.client import Consul, connect

START_S = 30.0
# Below the range that outgoing connections are given, so that none takes a port between choice and use.
PORTS = range(20000, 32000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses a Consul is an integration test."""
    for item in items:
        if "consul_binary" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def consul_binary() -> Path:
    """The Consul to test with. There must be one: a test that needs it fails without, it is not skipped."""
    found = find_consul()
    if not found:
        pytest.fail("no Consul found: run `make demo` once, or set OUTRIDER_TEST_CONSUL")
    return found


def find_consul() -> Path | None:
    """The Consul that the environment names, else the cached one, else the installed one."""
    if named := os.environ.get("OUTRIDER_TEST_CONSUL"):
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outrider" / "consul"
    if cached := sorted(cache.glob("*/consul")):
        return cached[-1]
    installed = shutil.which("consul")
    return Path(installed) if installed else None


@pytest.fixture(scope="session")
def fresh_consul(
    consul_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], AbstractContextManager[ConsulServer]]]:
    """Makes running servers. The next is started while one is used: its election is more than a second of waiting."""
    spare = [_begun(consul_binary, tmp_path_factory)]

    @contextmanager
    def fresh() -> Iterator[ConsulServer]:
        server = spare.pop()
        spare.append(_begun(consul_binary, tmp_path_factory))
        try:
            server.start()
            yield server
        finally:
            server.stop()

    yield fresh
    spare.pop().stop()


def _begun(binary: Path, folders: pytest.TempPathFactory) -> ConsulServer:
    server = ConsulServer(binary, folders.mktemp("consul"))
    server.begin()
    return server


@pytest.fixture
def consul(fresh_consul: Callable[[], AbstractContextManager[ConsulServer]]) -> Iterator[ConsulServer]:
    """A fresh running server, for tests that stop, freeze or wipe it, or need it empty."""
    with fresh_consul() as server:
        yield server


@pytest.fixture(scope="module")
def shared_consul(fresh_consul: Callable[[], AbstractContextManager[ConsulServer]]) -> Iterator[ConsulServer]:
    """A running server for all tests of one module: each uses keys and services of its own."""
    with fresh_consul() as server:
        yield server


class ConsulServer:
    """A Consul server process that a test may stop, freeze and wipe.

    `extra` is merged into its configuration; the first start may move to other ports if somebody took one.
    """

    def __init__(self, binary: Path, folder: Path, extra: dict[str, object] | None = None) -> None:
        self.binary, self.folder, self.extra = binary, folder, extra or {}
        self.node = "local"
        self.process: subprocess.Popen[bytes] | None = None
        self.started_once = False
        folder.mkdir(parents=True, exist_ok=True)
        self._choose_ports()

    def begin(self) -> None:
        """Start it, and wait for nothing."""
        with self.log_file.open("ab") as log:
            command = [self.binary, "agent", f"-config-file={self.folder / 'consul.json'}"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def start(self) -> None:
        """Start it, unless that was begun, and wait until it has a leader and takes writes."""
        for _attempt in range(3):
            if not self.process:
                self.begin()
            if self._ready():
                self.started_once = True
                return
            self.stop()
            if not self.started_once:
                self._choose_ports()
        raise AssertionError(f"Consul does not start:\n{self.log_file.read_text()[-2000:]}")

    def stop(self) -> None:
        """Kill it; its data stays, and `start` brings it back on the same ports."""
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Stop it from running; its connections stay open."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Stop it if it runs, and lose all its data."""
        self.stop()
        shutil.rmtree(self.folder / "data")

    @property
    def log_file(self) -> Path:
        """What it printed since the first start."""
        return self.folder / "consul.log"

    def _choose_ports(self) -> None:
        names = ("http", "dns", "server", "serf_lan")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        config = {
            "node_name": self.node,
            "data_dir": str(self.folder / "data"),
            "server": True,
            "bootstrap_expect": 1,
            "bind_addr": "127.0.0.1",
            "ui": True,
            "disable_update_check": True,
            "performance": {"raft_multiplier": 1},
            "ports": {**self.ports, "grpc": -1, "serf_wan": -1},
            **self.extra,
        }
        (self.folder / "consul.json").write_text(json.dumps(config))
        self.address = Address(port=self.ports["http"])
        self.http_url = str(self.address)
        self.client: Consul = connect(self.address)

    def _ready(self) -> bool:
        """False if it ended, or took longer than it may."""
        assert self.process
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.client.put("/v1/kv/ready", b"1")
                return True
            except ConsulError as error:
                if error.status == 403:
                    return True
                time.sleep(0.05)
        return False


def free_ports(count: int) -> list[int]:
    """Ports free now on loopback, for TCP and UDP alike."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if len(found) == count:
            break
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found
