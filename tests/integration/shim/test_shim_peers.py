"""A real shim tells a peer of its instances directly, and believes what it is told; the peer is this test."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from integration.conftest import free_ports
from integration.shim.consul_relay import Relay
from outrider.host.peers import Peers
from outrider.registry import services
from outrider.registry.layout import Placed
from outrider.registry.services import Service

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)
KEY = bytes(range(32))
SHIM = "127.0.0.1"


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
    return Peers("other", KEY, "127.0.0.2", port, lambda: {"local": SHIM}, lambda: None)


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
    client = host.consul.client
    # The other host's instance as Consul has it: registered, placed, and passing whatever happens to it.
    meta = {"agent": "Alpha", "version": "v1", "epoch": "0", "host": "other", "role": "replica", "ports": "{}"}
    service = Service("Alpha-2", "Alpha", "127.0.0.2", 7200, ("outrider",), meta)
    node = {"Node": "other", "Address": "127.0.0.2", "NodeMeta": {"external-node": "true"}}
    node["Service"] = {"ID": service.id, "Service": service.name, "Address": service.address, "Port": service.port}
    node["Service"] |= {"Tags": list(service.tags), "Meta": meta}
    client.put("/v1/catalog/register", json.dumps(node).encode())
    place_on_both(host)
    host.wait(lambda: {"Alpha-1", "Alpha-2"} <= {instance.instance for instance in host.served("Alpha")})
    assert services.node_services(client, "other")
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


def place_on_both(host: ShimHost) -> None:
    """The second instance of Alpha on the host `other`, which runs no shim."""
    agent, placement = host.docs["Alpha"]
    host.docs["Alpha"] = (agent, replace(placement, instances=(*placement.instances, Placed("Alpha-2", "other", "v1"))))
    host.write()
