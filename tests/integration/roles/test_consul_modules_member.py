"""A node that is gone leaves nothing behind, and no server is removed that the others cannot do without."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.roles.consul_cluster import Cluster, Host, peers_of, run_module, wait

FORGOTTEN = ["remove from gossip", "deregister"]


@pytest.fixture(scope="module")
def cluster(consul_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three servers that are well, and a client."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), consul_binary)
    client = made.add("client", 20, server=False)
    try:
        for host in made.servers:
            host.start()
        made.settle()
        client.start()
        yield made
    finally:
        made.stop()


def remove(cluster: Cluster, host: Host, check: bool = False, **more: Any) -> dict[str, Any]:
    arguments = {**cluster.connection, "node": host.name, "timeout_s": 20}
    return run_module("consul_member", {**arguments, **more}, check)


def traces(cluster: Cluster, host: Host) -> list[str]:
    """Where the servers still know the name."""
    others = [server for server in cluster.servers if server.runs]
    found = [peer.name for peer in peers_of(cluster.client(*others)) if peer.name == host.name]
    found += [row["Node"] for row in cluster.client(*others).get("catalog/nodes") if row["Node"] == host.name]
    lists = [cluster.client(server).get("agent/members") for server in others]
    return found + [row["Name"] for rows in lists for row in rows if row["Name"] == host.name]


def test_a_client_is_removed_once_it_is_stopped(cluster: Cluster) -> None:
    client = cluster.hosts[-1]
    wait(lambda: cluster.client().get("catalog/node/client"))
    refused = remove(cluster, client, timeout_s=1)
    assert "is alive; stop Consul there" in refused["msg"]
    assert "client" in traces(cluster, client)
    client.kill()
    predicted = remove(cluster, client, check=True)
    assert traces(cluster, client)
    gone = remove(cluster, client)
    assert gone["changed"], gone
    assert gone["steps"] == predicted["steps"] == FORGOTTEN
    assert traces(cluster, client) == []
    assert not remove(cluster, client)["changed"]
    # The unit is stopped by the module, where it runs on the host itself.
    client.start()
    wait(lambda: cluster.client().get("catalog/node/client"))
    stop = ["/bin/sh", "-c", f"kill {client.pid}"]
    assert remove(cluster, client, leave=True, stop_command=stop)["steps"] == ["stop", *FORGOTTEN]
    assert traces(cluster, client) == []


def test_a_lost_server_is_removed_and_may_come_back_as_a_new_one(cluster: Cluster) -> None:
    leader = cluster.leader()
    lost, other = [host for host in cluster.servers if host is not leader]
    lost.kill()
    wait(lambda: not [peer for peer in peers_of(cluster.client(leader)) if peer.name == lost.name and peer.well])
    refused = remove(cluster, other, leave=True, stop_command=["/bin/false"])
    assert f"2 voters, of which 1 are well ({leader.name}): no quorum" in refused["msg"], refused
    gone = remove(cluster, lost, prune=False)
    assert gone["changed"], gone
    assert gone["steps"] == ["remove from raft", *FORGOTTEN]
    assert lost.name not in [peer.name for peer in peers_of(cluster.client(leader))]
    assert not cluster.client(leader).get(f"catalog/node/{lost.name}")
    assert not remove(cluster, lost, prune=False)["changed"]
    shutil.rmtree(lost.folder / "data")
    lost.start()
    cluster.settle(40)


def test_a_server_leaves_by_itself(cluster: Cluster) -> None:
    leaves = next(host for host in cluster.servers if host is not cluster.leader())
    stop = ["/bin/sh", "-c", f"while kill -9 {leaves.pid} 2>/dev/null; do sleep 0.1; done"]
    gone = remove(cluster, leaves, leave=True, stop_command=stop)
    assert gone["changed"], gone
    assert gone["steps"] == ["leave", "stop", "remove from raft", *FORGOTTEN]
    assert traces(cluster, leaves) == []
