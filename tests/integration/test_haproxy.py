"""A real HAProxy as the role configures it, told by the shim: clients that know one port follow the instances."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import jinja2
import pytest
import zmq
import zmq.asyncio

from outrider.discovery.records import Entry, Instance
from outrider.host.local_ports import LocalPorts

TEMPLATES = Path(__file__).parents[2] / "roles" / "agents" / "templates"
HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin")

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed: apt install haproxy")

# As the reference fleet's agents are: a socket of its own, and no word of Outrider.
SERVER = """
import sys, zmq
sock = zmq.Context().socket(zmq.REP)
sock.bind("tcp://127.0.0.1:" + sys.argv[2])
while True:
    sock.send_string(sys.argv[1] + " " + sock.recv_string())
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it is true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.02)


class Host:
    """HAProxy, the shim's part that tells it, and a catalogue to change."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.entries: dict[str, Entry] = {}
        self._folder = folder
        self._config = folder / "local-ports.cfg"
        self._socket = folder / "admin.sock"
        environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined)
        environment.filters["dictsort"] = lambda mapping: sorted(mapping.items())
        self._config.write_text(
            environment.get_template("local-ports.cfg.j2").render(
                ansible_managed="managed",
                agents_local_address="127.0.0.1",
                __agents_local_ports_runtime=str(folder),
                __agents_runtime_dir=str(folder),
                __agents_local_ports={"Echo": {"port": self.port, "instances": 2}},
            )
        )
        self.ports = LocalPorts(self._socket, folder / "local-ports.state", lambda: self.entries, "here")
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self.start()

    def start(self) -> None:
        self._haproxy = subprocess.Popen([str(HAPROXY), "-W", "-f", str(self._config)], stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self._haproxy.terminate()
        self._haproxy.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def reload(self) -> None:
        self._haproxy.send_signal(signal.SIGUSR2)

    async def settled(self) -> None:
        """Until HAProxy was told of everybody."""
        state = self._folder / "local-ports.state"
        await until(lambda: state.exists() and all(f" {i.port} " in state.read_text() for i in self.instances()))

    def instances(self) -> tuple[Instance, ...]:
        return self.entries["Echo"].instances if "Echo" in self.entries else ()

    def serve(self, instance: str, host: str = "there") -> None:
        """Start a server and publish it."""
        port = free_port()
        self._servers[instance] = subprocess.Popen([sys.executable, "-c", SERVER, instance, str(port)])
        self.publish(*self.instances(), Instance("Echo", instance, host, "127.0.0.1", port, {}))

    def publish(self, *instances: Instance) -> None:
        self.entries = {"Echo": Entry("Echo", instances)}
        self.ports.news()

    def kill(self, instance: str) -> None:
        self._servers[instance].kill()
        self._servers[instance].wait()

    def withdraw(self, instance: str) -> None:
        self.publish(*(i for i in self.instances() if i.instance != instance))

    async def close(self) -> None:
        await self.ports.stop()
        self.stop()
        for process in self._servers.values():
            process.kill()
            process.wait()


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    made.ports.start()
    yield made
    await made.close()


class Client:
    """One REQ socket, connected once to the local port, as old code has it."""

    def __init__(self, port: int) -> None:
        self._socket = zmq.asyncio.Context.instance().socket(zmq.REQ)
        # What such clients set, so that a lost reply does not leave them waiting for ever.
        self._socket.setsockopt(zmq.REQ_RELAXED, 1)
        self._socket.setsockopt(zmq.REQ_CORRELATE, 1)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(f"tcp://127.0.0.1:{port}")

    async def ask(self) -> str:
        """Who answers; asks again until somebody does."""
        async with asyncio.timeout(20):
            while True:
                await self._socket.send_string("hello")
                if await self._socket.poll(500):
                    # The reply to an earlier request wakes it up and is then dropped.
                    with contextlib.suppress(zmq.Again):
                        return str((await self._socket.recv_string()).split()[0])

    def close(self) -> None:
        self._socket.close()


async def test_a_request_reply_client_follows_its_server(host: Host) -> None:
    client = Client(host.port)
    try:
        host.serve("first")
        assert await client.ask() == "first"
        host.serve("second")
        host.kill("first")
        host.withdraw("first")
        assert await client.ask() == "second"
        host.restart()
        assert await client.ask() == "second"
    finally:
        client.close()


async def test_one_that_leaves_though_it_still_answers_loses_its_connections(host: Host) -> None:
    """As one that hangs, is drained, or is ill: HAProxy itself sees nothing wrong."""
    client = Client(host.port)
    try:
        host.serve("first")
        assert await client.ask() == "first"
        host.serve("second")
        host.withdraw("first")
        async with asyncio.timeout(20):
            while await client.ask() != "second":
                pass
        assert {await client.ask() for _ in range(20)} == {"second"}
    finally:
        client.close()


async def test_one_of_this_host_is_preferred(host: Host) -> None:
    host.serve("far")
    host.serve("near", host="here")

    async def asks_near() -> bool:
        client = Client(host.port)
        try:
            return await client.ask() == "near"
        finally:
            client.close()

    async with asyncio.timeout(20):
        while not await asks_near():
            pass
    assert all([await asks_near() for _ in range(20)])


async def test_one_that_refuses_connections_is_passed_over_before_the_shim_knows(host: Host) -> None:
    host.serve("near", host="here")
    host.serve("far")
    client = Client(host.port)
    try:
        assert await client.ask() in ("near", "far")
        await host.ports.stop()
        host.kill("near")
        assert await client.ask() == "far"
    finally:
        client.close()


async def line_of(port: int) -> str:
    """What a plain client gets that connects once, sends nothing, and does not try again."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(5):
            return (await reader.readline()).decode().strip()
    finally:
        writer.close()


async def greeter(name: str) -> asyncio.Server:
    """A server that says its name to whoever connects, and holds the connection."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{name}\n".encode())
        await writer.drain()

    return await asyncio.start_server(greet, "127.0.0.1", 0)


async def test_a_client_that_does_not_try_again_sees_nothing_of_one_that_is_gone(host: Host) -> None:
    near, far = await greeter("near"), await greeter("far")
    places = [("here", near.sockets[0].getsockname()[1]), ("there", far.sockets[0].getsockname()[1])]
    host.publish(*(Instance("Echo", where, where, "127.0.0.1", port, {}) for where, port in places))
    await host.settled()
    assert await line_of(host.port) == "near"
    await host.ports.stop()
    near.close()
    assert [await line_of(host.port) for _ in range(10)] == ["far"] * 10
    far.close()


async def test_a_reload_breaks_no_connection_and_refuses_none(host: Host) -> None:
    server = await greeter("it")
    host.publish(Instance("Echo", "it", "here", "127.0.0.1", server.sockets[0].getsockname()[1], {}))
    await host.settled()
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    assert await reader.readline() == b"it\n"
    # What it knows then comes from the file: there is no shim to say it.
    await host.ports.stop()
    host.reload()
    end = asyncio.get_running_loop().time() + 2
    while asyncio.get_running_loop().time() < end:
        assert await line_of(host.port) == "it"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(), 0.1)
    writer.close()
    host.restart()
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                assert await line_of(host.port) == "it"
                break
            await asyncio.sleep(0.05)
    server.close()


async def test_without_haproxy_it_says_so_once_and_waits(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="outrider.shim")
    host.serve("it")
    await host.settled()
    caplog.clear()
    host.stop()
    for _ in range(5):
        host.ports.news()
        await asyncio.sleep(0.05)
    host.start()
    await until(lambda: any("answers again" in record.message for record in caplog.records))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    client = Client(host.port)
    assert await client.ask() == "it"
    client.close()
