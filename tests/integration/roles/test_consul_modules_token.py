"""A host's token is in Consul as it shall be, and good everywhere, when the module says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from integration.roles.consul_cluster import Cluster, Consul, ConsulError, result_of, run_module, start_module, wait

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cluster(consul_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Running servers, and a client that asks one server only: a follower, where a new token comes last."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), consul_binary)
    try:
        for host in made.servers:
            host.start()
        yield made
    finally:
        made.stop()


def wanted(cluster: Cluster, name: str, rules: str | None = None, **more: Any) -> dict[str, Any]:
    token = {"accessor": str(uuid.uuid4()), "secret": str(uuid.uuid4()), "description": f"host {name}"}
    rules = f'node "{name}" {{ policy = "write" }}\n' if rules is None else rules
    return {**cluster.connection, "policy": {"name": f"host-{name}", "rules": rules}, "token": token, **more}


def test_a_starting_cluster_is_waited_for_and_what_differs_is_corrected(cluster: Cluster) -> None:
    arguments = wanted(cluster, "one")
    made = run_module("consul_token", arguments)
    assert made["steps"] == ["create policy", "create token"], made
    assert (made["changed"], made["not_reached"]) == (True, [])
    assert made["diff"]["after"] == 'node "one" { policy = "write" }\n'
    assert arguments["token"]["secret"] not in json.dumps(made)
    assert cluster.management not in json.dumps(made)
    again = run_module("consul_token", arguments)
    assert (again["changed"], again["steps"]) == (False, []), again

    arguments["policy"]["rules"] = 'node "one" { policy = "read" }'
    predicted = run_module("consul_token", arguments, check=True)
    assert (predicted["changed"], predicted["steps"]) == (True, ["update policy"])
    assert predicted["diff"]["before"] == 'node "one" { policy = "write" }\n'
    assert run_module("consul_token", arguments, check=True)["changed"], "check mode wrote"
    assert run_module("consul_token", arguments)["steps"] == ["update policy"]

    # Somebody gives the token more than it shall have.
    accessor, client = arguments["token"]["accessor"], cluster.client()
    token = client.get(f"acl/token/{accessor}")
    client.put(f"acl/token/{accessor}", {**token, "Policies": [*token["Policies"], {"Name": "global-management"}]})
    assert run_module("consul_token", arguments)["steps"] == ["update token"]
    assert [link["Name"] for link in client.get(f"acl/token/{accessor}")["Policies"]] == ["host-one"]

    predicted = run_module("consul_token", {**arguments, "state": "absent"}, check=True)
    gone = run_module("consul_token", {**arguments, "state": "absent"})
    assert gone["steps"] == predicted["steps"] == ["delete token", "delete policy"]
    assert not run_module("consul_token", {**arguments, "state": "absent"})["changed"]
    assert "host-one" not in [policy["Name"] for policy in client.get("acl/policies")]


def test_three_hosts_at_once_and_a_follower_never_says_not_found(cluster: Cluster) -> None:
    leader = cluster.leader()
    follower = next(host for host in cluster.servers if host is not leader)
    # A client that knows this follower alone: `not found` would be remembered there for 30 s.
    client = cluster.add("client-a", 20, server=False, retry_join=[follower.address])
    client.start()
    wait(lambda: Consul(client.http).get("status/leader"))
    each = [wanted(cluster, f"at-once-{number}", 'node_prefix "" { policy = "read" }') for number in range(3)]
    for arguments in each:
        arguments["policy"]["name"] = "shared"  # each finds that another was quicker
    follower.kill(signal.SIGSTOP)  # the others have the token, and this one does not yet
    try:
        running = [start_module("consul_token", arguments) for arguments in each]
        for arguments in each:
            wait(partial(cluster.client(leader).get, f"acl/token/{arguments['token']['accessor']}"))
        with pytest.raises(subprocess.TimeoutExpired):
            running[0].wait(0.7)
    finally:
        follower.kill(signal.SIGCONT)
    results = [result_of(process) for process in running]
    assert [result["not_reached"] for result in results] == [[], [], []], results
    assert all("create token" in result["steps"] for result in results), results
    for arguments in each:
        assert Consul(client.http, token=arguments["token"]["secret"]).get("catalog/nodes")
    assert [run_module("consul_token", arguments)["changed"] for arguments in each] == [False] * 3


def test_the_anonymous_token_stays_without_rights(cluster: Cluster) -> None:
    run_module("consul_token", wanted(cluster, "any"))
    assert Consul(cluster.servers[0].http).get("catalog/nodes") == []
    with pytest.raises(ConsulError, match="403"):
        Consul(cluster.servers[0].http).get("acl/tokens")


def test_a_server_that_is_down_is_named_and_two_are_too_many(cluster: Cluster) -> None:
    down = next(host for host in cluster.servers if host is not cluster.leader())
    down.kill()
    result = run_module("consul_token", wanted(cluster, "with-two"))
    assert (result["changed"], result["not_reached"]) == (True, [down.url]), result
    # No majority to read it back from, though it can be written.
    nobody = [down.url, down.url.replace(":8501", ":1"), cluster.leader().url]
    refused = run_module("consul_token", {**wanted(cluster, "none"), "read_back": nobody, "wait_s": 2.2})
    assert refused["failed"]
    assert down.url in refused["msg"]
    down.start()
    wait(lambda: Consul(down.http).get("status/leader"))


def test_a_token_with_another_secret_is_refused(cluster: Cluster) -> None:
    arguments = wanted(cluster, "two")
    assert run_module("consul_token", arguments)["changed"]
    old, arguments["token"]["secret"] = arguments["token"]["secret"], str(uuid.uuid4())
    refused = run_module("consul_token", arguments)
    assert "with another secret" in refused["msg"]
    assert old not in json.dumps(refused)
    assert arguments["token"]["secret"] not in json.dumps(refused)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"management_token": str(uuid.uuid4())}, "not the one of this cluster"),
        ({"cert_file": None, "key_file": None}, "certificate"),
        ({"ca_file": "/nowhere/ca.pem"}, "/nowhere/ca.pem"),
        ({"policy": {"name": "broken", "rules": "node {"}}, "parse"),
    ],
)
def test_what_will_not_pass_is_said(cluster: Cluster, change: dict[str, Any], said: str) -> None:
    refused = run_module("consul_token", {**wanted(cluster, "three"), "wait_s": 1, **change})
    assert refused["failed"]
    assert said in refused["msg"]
    assert cluster.management not in json.dumps(refused)


def test_check_mode_before_there_is_a_cluster_predicts(tmp_path: Path, cluster: Cluster) -> None:
    arguments = wanted(cluster, "four", servers=["https://127.0.0.1:1"], ca_file=str(tmp_path / "none"))
    predicted = run_module("consul_token", arguments, check=True)
    assert (predicted["changed"], predicted["not_reached"]) == (True, arguments["servers"]), predicted


def test_no_secret_is_shown_by_ansible(cluster: Cluster, tmp_path: Path) -> None:
    arguments = wanted(cluster, "six")
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False}
    tasks = [{"name": "Token", "consul_token": arguments}, {"name": "Again", "consul_token": arguments}]
    tasks += [{"name": "Fails", "consul_token": {**arguments, "policy": {"name": "x", "rules": "node {"}}}]
    (tmp_path / "play.yml").write_text(json.dumps([{**play, "tasks": tasks}]))
    environment = {**os.environ, "ANSIBLE_HOME": str(tmp_path), "ANSIBLE_PYTHON_INTERPRETER": sys.executable}
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-vvv", "--diff"]
    command += [str(tmp_path / "play.yml")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert "+node" in output, output
    assert "changed=1" in output, output
    assert "failed=1" in output, output
    assert arguments["token"]["secret"] not in output
    assert cluster.management not in output
    assert "did not set no_log" not in output
