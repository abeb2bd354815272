"""Calls between the agents of the reference fleet, across real hosts: every need walked, things stopped and killed."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hosts.fleet import Fleet, until

PYTHON = "env OUTRIDER_CALLS_TLS=/etc/outrider/calls /opt/outrider/venv/bin/python"
NEEDS = 140

# Every agent is asked for its chain until standard input ends; its own needs are the tree's first level.
WALK = """
import asyncio, json, sys, threading
import outrider
agents = sys.argv[1].split(",")
done = []
threading.Thread(target=lambda: done.append(sys.stdin.read()), daemon=True).start()
async def walk(agent, turns):
    async with turns:
        return await outrider.acall(agent, "chain", {"deadline_ms": 15000}, timeout=16, idempotent=True)
async def main():
    edges, failed, walks = set(), 0, 0
    turns = asyncio.Semaphore(8)
    print("ready", flush=True)
    while not walks or not done:
        trees = await asyncio.gather(*(walk(agent, turns) for agent in agents))
        edges |= {(tree["agent"], need["agent"]) for tree in trees for need in tree["needs"]}
        failed += sum(tree["failed"] for tree in trees)
        walks += 1
    print(json.dumps({"edges": sorted(edges), "failed": failed, "walks": walks}))
asyncio.run(main())
"""

CALLS = """
import json, sys, threading, time
import outrider
agents = sys.argv[1].split(",")
done, errors, instances = [], {}, {}
count = 0
slowest = 0.0
threading.Thread(target=lambda: done.append(sys.stdin.read()), daemon=True).start()
print("ready", flush=True)
while not done:
    for agent in agents:
        began = time.perf_counter()
        try:
            answer = outrider.call(agent, "chain", {"deadline_ms": 900}, timeout=1.0, idempotent=True)
            instances[answer["instance"]] = instances.get(answer["instance"], 0) + 1
        except outrider.OutriderError as error:
            errors[str(error)] = errors.get(str(error), 0) + 1
        slowest = max(slowest, time.perf_counter() - began)
        count += 1
    time.sleep(0.002)
print(json.dumps({"count": count, "errors": errors, "instances": instances, "slowest_ms": slowest * 1000}))
"""

REFUSED = """
import outrider
try:
    outrider.call("SystemDigitalTwin", "nothing")
except outrider.CallRefused as error:
    print(error.trace)
"""

STRANGER = """
import socket, ssl, sys
context = ssl.create_default_context(cafile="/etc/outrider/calls/ca.pem")
context.check_hostname = False
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as plain:
    try:
        with context.wrap_socket(plain) as sock:
            sock.sendall(b"x")
            print("in" if sock.recv(1) else "closed")
    except ssl.SSLError as error:
        print("refused", error.reason)
"""


def inside(fleet: Fleet, host: str, script: str, *words: str) -> list[str]:
    leader = str(fleet.lab.machines()[host].leader())
    command = shlex.join([*PYTHON.split(), "-c", script, *words])
    return ["nsenter", "--target", leader, "--all", "--", "sh", "-c", command]


@contextmanager
def calling(fleet: Fleet, host: str, *agents: str, script: str = CALLS) -> Iterator[dict[str, Any]]:
    """Call them in turn from that host while the block runs. The mapping has what came of it afterwards."""
    process = subprocess.Popen(
        inside(fleet, host, script, ",".join(agents)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    found: dict[str, Any] = {}
    try:
        yield found
    finally:
        output, _ = process.communicate(timeout=120)
        found |= json.loads(output.splitlines()[-1])


def test_the_chain_walks_every_need_of_the_fleet(fleet: Fleet) -> None:
    fleet.wait_well()
    rows = fleet.status()["instances"]
    agents, edges = sorted({row["agent"] for row in rows}), set()
    # An agent with an instance on both needs other agents there.
    for host in {row["host"] for row in rows if row["agent"] == "ObservabilityHub"}:
        with calling(fleet, host, *agents, script=WALK) as walked:
            pass
        assert walked["failed"] == 0
        edges |= {tuple(edge) for edge in walked["edges"]}
    assert len(edges) == NEEDS


def test_killing_an_instance_that_is_not_the_only_one_fails_no_call(fleet: Fleet) -> None:
    """Neither one of its callers', nor one of all those that walk through it."""
    fleet.wait_well()
    every = fleet.status()["instances"]
    agents = sorted({row["agent"] for row in every})
    rows = [row for row in every if row["agent"] == "ObservabilityHub"]
    assert len(rows) == len(every) - len(agents) + 1 == 2
    with (
        calling(fleet, "lab4", "ObservabilityHub") as near,
        calling(fleet, "lab1", "ObservabilityHub") as far,
        calling(fleet, "lab1", *agents, script=WALK) as walked,
    ):
        for row in rows:
            pid = f"systemctl show -P MainPID outrider-agent@{row['instance']}"
            before = fleet.on(row["host"], pid)
            fleet.on(row["host"], f"kill -9 $({pid})")
            until(lambda: fleet.on(row["host"], pid) not in (before, "0\n"), 30)  # noqa: B023
            fleet.wait_well()
    print(near, far, {name: walked[name] for name in ("failed", "walks")})
    for found in (near, far):
        assert found["errors"] == {}
        assert found["count"] > 100
    assert walked["failed"] == 0


def test_calls_go_on_without_shim_and_consul(fleet: Fleet) -> None:
    fleet.wait_well()
    try:
        # Not singletons of lab4: without its shim nobody confirms their leases.
        away = [row for row in fleet.status()["instances"] if row["role"] == "holder" and row["host"] != "lab4"]
        agents = sorted(row["agent"] for row in away if row["agent"] in ("SystemDigitalTwin", "RequestCoordinator"))
        with calling(fleet, "lab4", "ObservabilityHub", *agents) as found:
            fleet.on("lab4", "systemctl stop outriderd consul")
            until(lambda: fleet.on("lab4", "systemctl is-active outriderd; true") == "inactive\n", 10)
            fleet.on("lab4", "sleep 3")  # what is cached must have become old: this is the time it is measured for
    finally:
        fleet.on("lab4", "systemctl start consul outriderd")
        fleet.wait_well()
    assert found["errors"] == {}
    assert found["count"] > 100


def test_the_host_tells_who_calls_whom(fleet: Fleet) -> None:
    with calling(fleet, "lab4", "SystemDigitalTwin") as found:
        rows = until(lambda: json.loads(fleet.on("lab4", "outrider calls SystemDigitalTwin --json"))["calls"], 15)
        assert rows[0]["caller"] == "other"
        until(lambda: 'target="SystemDigitalTwin"' in fleet.on("lab4", METRICS), 15)
    assert found["errors"] == {}
    breakers = json.loads(fleet.on("lab4", "outrider breakers SystemDigitalTwin --json", check=False))["circuits"]
    assert "closed" in {row["state"] for row in breakers if row["caller"] == "other"}


def test_a_call_that_failed_can_be_found_by_its_trace(fleet: Fleet) -> None:
    trace = subprocess.run(inside(fleet, "lab4", REFUSED), stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def found() -> list[dict[str, Any]]:
        samples = json.loads(fleet.on("lab4", "outrider calls SystemDigitalTwin --json"))["samples"]
        return [sample for sample in samples if sample["trace"] == trace]

    (sample,) = until(found, 15)
    assert (sample["method"], sample["outcome"]) == ("nothing", "refused")


METRICS = "curl -s --unix-socket /run/outrider/outriderd.sock http://localhost/metrics"


def test_a_stranger_does_not_get_to_call(fleet: Fleet) -> None:
    """A call between hosts takes a certificate of the authority for calls; Consul's own does not do."""
    answer = json.loads(fleet.on("lab4", "outrider lookup SystemDigitalTwin --json"))["instances"][0]
    where = answer["address"], str(answer["ports"]["call"])
    done = subprocess.run(
        inside(fleet, "lab4", STRANGER, *where), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.startswith(("refused", "closed")), (done.stdout, done.stderr)
