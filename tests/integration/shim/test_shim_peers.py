"""A real shim tells a peer of its instances directly, and believes what it is told; the peer is this test."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from integration.conftest import free_ports
from integration.shim.consul_relay import Relay
from integration.shim.under_load import COUNTER
from outrider.calls.client import Client
from outrider.discovery.reader import Catalogue
from outrider.errors import ConnectionLost
from outrider.fleet.spec import Agent
from outrider.host.peers import Peers
from outrider.registry import services
from outrider.registry.layout import Placed

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)
KEY = bytes(range(32))
SHIM, OTHER = "127.0.0.1", "127.0.0.2"


def configured(host: ShimHost) -> int:
    """Give the shim a key; the port."""
    port = free_ports(1)[0]
    key = host.folder / "peers.key"
    key.write_bytes(base64.b64encode(KEY))
    key.chmod(0o600)
    text = host.config.read_text()
    host.config.write_text(f'peers_key_file = "{key}"\npeers_port = {port}\n{text}')
    return port


def started(host: ShimHost, port: int) -> Peers:
    """The shim with an agent that passes, and its only peer, on another address."""
    host.publish({"Alpha": host.small})
    host.start()
    host.wait(lambda: host.passing("Alpha"))
    return Peers("other", KEY, OTHER, port, lambda: {"local": SHIM}, lambda: None)


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s
        await asyncio.sleep(0.002)
    return time.monotonic() - began


async def test_a_death_is_told_to_peers_though_consul_stands_still(host: ShimHost) -> None:
    other = started(host, configured(host))
    await other.start()
    try:
        await until(lambda: other.line.received > 10)
        meta = host.services()["outrider-shim"].meta
        assert (meta["peers_address"], meta["peers_port"]) == (SHIM, str(other._port))
        pid = host.pid("Alpha")
        host.consul.freeze()
        try:
            os.kill(pid, signal.SIGKILL)
            assert await until(lambda: ("local", "Alpha-1") in other.down_instances) < 0.5
            await until(lambda: not other.down_instances)
        finally:
            host.consul.thaw()
        host.wait(lambda: host.passing("Alpha"))
    finally:
        await other.stop()


async def test_who_stops_the_shim_silences_no_host(host: ShimHost) -> None:
    other = started(host, configured(host))
    await other.start()
    try:
        await until(lambda: other.line.received > 10)
        host.end(signal.SIGTERM)
        received = other.line.received
        host.start()
        await until(lambda: other.line.received > received + 5)
        assert (other.down_hosts, other._votes.suspects) == (frozenset(), frozenset())
        # Killed it cannot say goodbye, and is missed until it is back.
        host.end(signal.SIGKILL)
        await until(lambda: other.down_hosts == {"local"})
        host.start()
        await until(lambda: not other.down_hosts)
    finally:
        await other.stop()


async def test_what_a_peer_tells_leaves_the_routing_and_comes_back(host: ShimHost) -> None:
    other = started(host, configured(host))
    register_on_other(host, 7200)
    place_on_both(host)
    host.wait(lambda: {"Alpha-1", "Alpha-2"} <= {instance.instance for instance in host.served("Alpha")})
    assert services.node_services(host.consul.client, "other")
    await other.start()
    try:
        await until(lambda: other.line.received > 10)
        other.report("Alpha-2", True, time.monotonic(), "exited: signal 9")
        await until(lambda: [instance.instance for instance in host.served("Alpha")] == ["Alpha-1"])
        other.report("Alpha-2", False, time.monotonic(), "")
        await until(lambda: len(host.served("Alpha")) == 2)
        # The whole host falls silent: out of routing long before Consul would say so, and back when it is heard.
        other._timers.pop("beat").cancel()
        assert await until(lambda: [instance.instance for instance in host.served("Alpha")] == ["Alpha-1"]) < 2.0
        other._beat()
        assert await until(lambda: len(host.served("Alpha")) == 2) < 0.5
    finally:
        await other.stop()


async def test_a_consul_agent_that_knows_no_leader_is_shown_a_host_that_is_heard(host: ShimHost) -> None:
    port, relay = configured(host), Relay(host.consul.ports["http"])
    host.config.write_text(
        host.config.read_text().replace(f"port = {host.consul.ports['http']}\n", f"port = {relay.port}\n")
    )
    other = started(host, port)
    meta = {"fleet": "test", "host": "other", "peers_address": "127.0.0.2", "peers_port": str(port)}
    service = {"ID": "outrider-shim", "Service": "outrider-shim", "Address": "127.0.0.2", "Port": 9321, "Meta": meta}
    node = {"Node": "other", "Address": "127.0.0.2", "NodeMeta": {"external-node": "true"}, "Service": service}
    host.consul.client.put("/v1/catalog/register", json.dumps(node).encode())
    await other.start()
    try:
        await until(lambda: other.line.received > 10)
        await until(lambda: b"127.0.0.2" in host.request("GET", "/sd"))
        relay.leaderless = True
        await until(lambda: "/v1/agent/join/127.0.0.2" in relay.asked)
    finally:
        await other.stop()
        relay.stop()


class Silent:
    """A port of the other host, where calls are taken and never answered. `taken`: connections so far."""

    def __init__(self) -> None:
        self.taken: list[socket.socket] = []
        self._socket = socket.socket()
        self._socket.bind((OTHER, 0))
        self._socket.listen(0)
        self.port = int(self._socket.getsockname()[1])
        asyncio.get_running_loop().add_reader(self._socket, lambda: self.taken.append(self._socket.accept()[0]))

    def vanish(self) -> None:
        """Its queue is full from now on, and its kernel drops what comes: as if there was no host."""
        asyncio.get_running_loop().remove_reader(self._socket)
        for _ in range(4):
            self.taken.append(socket.socket())
            self.taken[-1].setblocking(False)
            self.taken[-1].connect_ex((OTHER, self.port))

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        for one in (self._socket, *self.taken):
            one.close()


async def test_calls_under_way_end_when_their_host_is_lost_and_not_when_only_its_shim_is_silent(host: ShimHost) -> None:
    port, silent = configured(host), Silent()
    log = {"COUNTER_LOG": str(host.folder / "counted")}
    command = (sys.executable, str(COUNTER))
    host.publish({"Alpha": Agent(command=command, ports={"call": "auto"}, environment=log, probes=())})
    agent, here = host.docs["Alpha"]
    host.docs["Alpha"] = (agent, replace(here, instances=(Placed("Alpha-2", "other", "v1"),)))
    host.write()
    register_on_other(host, silent.port)
    host.start()
    other = Peers("other", KEY, OTHER, port, lambda: {"local": SHIM}, lambda: None)
    await other.start()
    client = Client(runtime=host.folder / "runtime", caller="test")
    catalogue: list[Catalogue] = []
    try:
        await until(lambda: names(host) == ["Alpha-2"] and other.line.received > 10)
        calls = [
            asyncio.create_task(asyncio.to_thread(client.call, "Alpha", "add", timeout=60, idempotent=True)),
            asyncio.create_task(asyncio.to_thread(client.call, "Alpha", "hold", {"s": 0.0}, timeout=60)),
            asyncio.create_task(client.acall("Alpha", "add", timeout=60, idempotent=True)),
        ]
        await until(lambda: len(silent.taken) == len(calls))
        host.docs["Alpha"] = (agent, replace(here, instances=(*here.instances, Placed("Alpha-2", "other", "v1"))))
        host.write()
        await until(lambda: names(host) == ["Alpha-1", "Alpha-2"])
        catalogue.append(Catalogue(host.folder / "runtime"))
        # Its shim falls silent and its kernel goes on: out of routing, and asked now and then whether it is lost.
        other._timers.pop("beat").cancel()
        await until(lambda: names(host) == ["Alpha-1"] and len(silent.taken) > len(calls) + 3)
        assert catalogue[0].lookup("Alpha").lost == ()
        assert not any(call.done() for call in calls)
        silent.vanish()
        again, once, in_the_loop = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)
        assert [said["instance"] for said in (again, in_the_loop)] == ["Alpha-1", "Alpha-1"]
        assert isinstance(once, ConnectionLost)
        assert (once.safe, once.instance, "its host is lost" in once.message) == (False, "Alpha-2", True)
        assert catalogue[0].lookup("Alpha").lost == ("other",)
        other._beat()
        await until(lambda: catalogue[0].lookup("Alpha").lost == () and names(host) == ["Alpha-1", "Alpha-2"])
    finally:
        client.close()
        silent.close()
        await other.stop()


def names(host: ShimHost) -> list[str]:
    return [instance.instance for instance in host.served("Alpha")]


def register_on_other(host: ShimHost, port: int) -> None:
    """An instance of Alpha on the other host as Consul has it: passing whatever happens to it."""
    meta = {"agent": "Alpha", "version": "v1", "epoch": "0", "host": "other", "role": "replica", "ports": "{}"}
    service = {"ID": "Alpha-2", "Service": "Alpha", "Address": OTHER, "Port": port, "Tags": ["outrider"], "Meta": meta}
    node = {"Node": "other", "Address": OTHER, "NodeMeta": {"external-node": "true"}, "Service": service}
    host.consul.client.put("/v1/catalog/register", json.dumps(node).encode())


def place_on_both(host: ShimHost) -> None:
    """The second instance of Alpha on the host `other`, which runs no shim."""
    agent, placement = host.docs["Alpha"]
    host.docs["Alpha"] = (agent, replace(placement, instances=(*placement.instances, Placed("Alpha-2", "other", "v1"))))
    host.write()
