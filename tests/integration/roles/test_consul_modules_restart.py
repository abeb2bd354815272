"""A Consul agent is restarted while the others can spare it, and comes back or goes back, one at a time."""

from __future__ import annotations

import http.server
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from integration.roles.consul_cluster import Cluster, Consul, Host, result_of, run_module, start_module, wait

KEY = "kv/outrider/locks/consul-restart"


@pytest.fixture(scope="module")
def cluster(consul_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Nothing runs yet: the first test starts it, by the module."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), consul_binary)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def running(cluster: Cluster) -> Cluster:
    """The cluster with three servers that are well."""
    for host in cluster.servers:
        if not host.runs:
            host.start()
    cluster.settle()
    return cluster


@pytest.fixture(scope="module")
def clients(cluster: Cluster) -> list[Host]:
    """Two clients, for what is the same with clients and servers: they are back within a second."""
    made = [cluster.add(f"client-{number}", 20 + number, server=False) for number in (1, 2)]
    assert [restart(cluster, client)["action"] for client in made] == ["start", "start"]
    return made


def restart(cluster: Cluster, host: Host, check: bool = False, **more: Any) -> dict[str, Any]:
    return run_module("consul_restart", cluster.restart(host, **more), check)


def session(cluster: Cluster) -> str:
    """Whose the lock is."""
    return str((cluster.client().get(KEY) or [{}])[0].get("Session", ""))


def followers(cluster: Cluster) -> list[Host]:
    leader = cluster.leader()
    return [host for host in cluster.servers if host is not leader]


def test_a_new_cluster_is_started_host_by_host(cluster: Cluster) -> None:
    one, two, three = cluster.servers
    predicted = restart(cluster, one, check=True)
    assert (predicted["changed"], predicted["action"], one.pid) == (True, "start", 0)
    first = restart(cluster, one)
    assert (first["changed"], first["action"]) == (True, "start"), first
    assert "1 of 3 servers run" in first["notes"][0]
    # What is pending before there is a cluster needs no lock, which nobody could give.
    one.write(log_level="WARN")
    assert restart(cluster, one)["action"] == "restart"
    assert "2 of 3 servers run" in restart(cluster, two)["notes"][0]
    last = restart(cluster, three)
    assert (last["action"], last["notes"]) == ("start", []), last
    assert cluster.leader()
    # The first two were not seen to come back, for there was no leader: that is made good, once.
    assert [restart(cluster, host)["action"] for host in cluster.servers] == ["confirm", "confirm", "none"]
    assert [restart(cluster, host)["changed"] for host in cluster.servers] == [False, False, False]


def test_the_leader_is_last_and_each_waits_for_the_one_before(running: Cluster) -> None:
    leader = running.leader()
    pids = {}
    for host in running.servers:
        host.write(log_level="WARN", telemetry={"disable_hostname": True})
        pids[host.name] = host.pid
        predicted = restart(running, host, check=True)
        assert (predicted["changed"], predicted["action"], host.pid) == (True, "restart", pids[host.name])
    started = [start_module("consul_restart", running.restart(host, leader="skip")) for host in running.servers]
    results = dict(zip([host.name for host in running.servers], map(result_of, started), strict=True))
    assert {name: result["action"] for name, result in results.items()} == {
        host.name: "skip" if host is leader else "restart" for host in running.servers
    }, results
    assert results[leader.name]["skipped_leader"]
    assert not results[leader.name]["changed"]
    assert leader.pid == pids[leader.name]
    last = restart(running, leader)
    assert (last["action"], last["notes"]) == ("restart", [])
    assert running.leader() is not leader
    assert not [host for host in running.servers if host.pid == pids[host.name]]
    assert session(running) == ""
    assert [restart(running, host)["action"] for host in running.servers] == ["none"] * 3


def test_two_operators_are_excluded(running: Cluster, clients: list[Host]) -> None:
    one, other = clients
    for host in (one, other):
        host.write(log_level="ERR")
    first = start_module("consul_restart", running.restart(one))
    wait(lambda: session(running))
    first.send_signal(signal.SIGSTOP)
    pid = other.pid
    second = restart(running, other, operator="bob@there", lock_wait_s=1)
    first.send_signal(signal.SIGCONT)
    assert second["failed"]
    assert f"ada@here, on {one.name} since 20" in second["msg"]
    assert other.pid == pid
    assert restart(running, other, operator="bob@there")["action"] == "restart"
    assert result_of(first)["action"] == "restart"
    assert session(running) == ""


def test_nothing_is_restarted_while_another_server_is_ill(running: Cluster) -> None:
    mine, ill = followers(running)
    mine.write(log_level="INFO")
    pid = mine.pid
    ill.kill()
    refused = restart(running, mine, timeout_s=1)
    assert f"of the voters {ill.name} are not well" in refused["msg"], refused
    assert (mine.pid, session(running)) == (pid, "")
    ill.start()
    assert restart(running, mine)["action"] == "restart"


def test_a_configuration_that_does_not_start_gives_way_to_the_previous_one(
    running: Cluster, clients: list[Host]
) -> None:
    mine, other = clients
    before = (mine.folder / "consul.json").read_text()
    mine.write(encrypt="no gossip key")
    refused = restart(running, mine, timeout_s=3, operator="ada@here, process 7")
    assert refused["failed"]
    assert "did not come back within 3 s" in refused["msg"]
    assert "The previous configuration is running again" in refused["msg"]
    assert f"journalctl -u consul -n 50`, mend it, and run the same again with --limit {mine.name}" in refused["msg"]
    assert (mine.folder / "consul.json").read_text() == before
    assert session(running) == ""
    assert restart(running, mine)["action"] == "none"
    # The same run leaves the next host alone, and the next run does not.
    other.write(telemetry={"disable_hostname": False})
    left = restart(running, other, operator="ada@here, process 7")
    assert f"{mine.name} did not come back" in left["msg"]
    assert restart(running, other, operator="ada@here, process 8")["action"] == "restart"


def test_a_server_goes_back_too(running: Cluster) -> None:
    mine = followers(running)[0]
    mine.write(no_such_setting=True)
    refused = restart(running, mine, timeout_s=4, operator="ada@here, process 9")
    assert "The previous configuration is running again" in refused["msg"]
    running.settle()


@pytest.mark.parametrize("after", ["", "sh {folder}/restart; "], ids=["before it restarts", "after it restarted"])
def test_a_killed_run_is_made_good_by_the_next(running: Cluster, clients: list[Host], after: str) -> None:
    mine = clients[0]
    mine.write(log_level="DEBUG" if after else "WARN")
    reached = mine.folder / "reached"
    reached.unlink(missing_ok=True)
    hangs = f"{after.format(folder=mine.folder)}touch {reached}; exec sleep 60"
    killed = start_module("consul_restart", running.restart(mine, restart_command=["/bin/sh", "-c", hangs]))
    wait(reached.exists)
    # The command is in a session of its own, so that the module's end does not end it.
    sleeping = [child.pid for child in psutil.Process(killed.pid).children(recursive=True)]
    for pid in [killed.pid, *sleeping]:
        os.kill(pid, signal.SIGKILL)
    killed.wait()
    assert session(running), "the lock is held until its time is over"
    action = "confirm" if after else "restart"
    assert restart(running, mine, check=True)["action"] == action
    # The lock goes to the same host at once.
    again = restart(running, mine, lock_wait_s=2)
    assert again["action"] == action, again
    assert restart(running, mine)["action"] == "none"
    if after:
        mine.write(log_level="ERR")
        assert restart(running, mine, lock_wait_s=2)["action"] == "restart"


def test_a_cluster_that_lost_its_quorum_is_restarted_only_by_force(running: Cluster) -> None:
    mine, other = followers(running)
    leader = running.leader()
    mine.write(log_level="TRACE")
    for host in (other, leader):
        host.kill()
    pid = mine.pid
    wait(lambda: Consul(mine.http).get("status/leader") == "")
    refused = restart(running, mine, lock_wait_s=2)
    assert refused["failed"]
    assert mine.pid == pid
    forced = restart(running, mine, force=True)
    assert forced["action"] == "restart", forced
    assert "1 of 3 servers run, and 2 are needed" in forced["notes"][0]


class Listener(http.server.BaseHTTPRequestHandler):
    """Somebody else who listens where Consul should."""

    seen: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.seen.append(f"{self.path} {self.headers}")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'"127.0.0.1:8300"')

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_who_listens_in_place_of_consul_gets_no_token(running: Cluster, clients: list[Host]) -> None:
    mine = clients[1]
    assert restart(running, mine)["action"] in ("none", "confirm")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        result = restart(running, mine, own=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert result["action"] == "none", result
    assert Listener.seen
    assert running.management not in json.dumps(Listener.seen)
