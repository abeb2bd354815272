"""Agents that nobody changed reach what they need at a port of their own host, and follow it when it dies."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hosts.fleet import Fleet, until
from hosts.lab.image import CHECKOUT

PORT = 6999
UNIT = "outrider-local-ports"
KEPT = "/var/lib/outrider-agents/OldClient-1"  # an agent's own state is for people to delete
# A server and a client as they were before Outrider: a REP socket, and a REQ socket connected to a port it was told.
SERVER = """
import os, socket, zmq
sock = zmq.Context().socket(zmq.REP)
sock.bind("tcp://" + os.environ["OUTRIDER_ADDRESS"] + ":" + os.environ["OUTRIDER_PORT"])
while True:
    sock.recv()
    sock.send_string(socket.gethostname())
"""
# It says who answers whenever that changes, and how long it got no answer before.
CLIENT = """
import sys, time, zmq
sock = zmq.Context().socket(zmq.REQ)
sock.setsockopt(zmq.REQ_RELAXED, 1)
sock.setsockopt(zmq.REQ_CORRELATE, 1)
sock.setsockopt(zmq.RCVTIMEO, 300)
sock.connect("tcp://127.0.0.1:" + sys.argv[1])
before, at = "", time.monotonic()
while True:
    try:
        sock.send(b"who?")
        said = sock.recv_string()
    except zmq.Again:
        continue
    if said != before:
        print(said, time.monotonic() - at, flush=True)
    before, at = said, time.monotonic()
    time.sleep(0.005)
"""


@contextlib.contextmanager
def old_client(fleet: Fleet, host: str, port: int, log: Path) -> Iterator[Callable[[], tuple[str, float]]]:
    """Runs on a host. Who answers it now, and how many seconds it got no answer before; "" while nobody did."""
    inside = ["nsenter", "--target", str(fleet.lab.machines()[host].leader()), "--net", "--"]
    with (
        log.open("w") as out,
        subprocess.Popen([*inside, sys.executable, "-c", CLIENT, str(port)], stdout=out) as client,
    ):

        def last() -> tuple[str, float]:
            lines = log.read_text().split("\n")[:-1]
            return (lines[-1].split()[0], float(lines[-1].split()[1])) if lines else ("", 0.0)

        try:
            yield last
        finally:
            client.kill()


@pytest.fixture(scope="module")
def old(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The fleet and, beside it, two servers that nobody changed on lab3 and lab4, needed on lab1 and lab2.

    What systemd says of the local ports on lab1 before it came.
    """
    folder = tmp_path_factory.mktemp("old")
    (folder / "old_server.py").write_text(SERVER)
    text = yaml.safe_load((CHECKOUT / "inventories" / "reference" / "fleet.yml").read_text())
    text["defaults"]["code"]["path"] = str(CHECKOUT / "examples" / "agents")
    server = {"module": "old_server", "code": {"path": str(folder)}, "hosts": ["pc2"], "mode": "replicated", "count": 2}
    server |= {"ports": {"main": PORT}, "probes": [{"type": "zmq", "port": "main"}], "state": False}
    client = {"hosts": ["mainpc"], "ports": {"main": "auto", "health": "auto"}, "needs": ["OldServer"]}
    text["groups"]["old"] = {"agents": {"OldServer": server, "OldClient": client}}
    path = folder / "fleet.yml"
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    before = running(fleet)
    try:
        played = fleet.play("site.yml", "--tags", "always,consul,agents", fleet_file=str(path))
        assert played.status == 0, played.output
        yield before
    finally:
        played = fleet.play("site.yml")
        assert played.status == 0, played.output
        fleet.wait_well()
        assert left_of_old(fleet) == {KEPT}


def left_of_old(fleet: Fleet) -> set[str]:
    """Files and processes of the agents that left the fleet file, on all hosts."""
    files = "/etc/systemd/system/outrider-agent@Old* /var/lib/outrider/*/Old* /var/lib/outrider-agents/Old*"
    look = f"(ls -d {files}; pgrep -f '[o]ld_server') 2>/dev/null; true"
    return {line for host in fleet.lab.machines() for line in fleet.on(host, look).splitlines()}


def running(fleet: Fleet) -> str:
    """Which start of HAProxy it is."""
    return fleet.on("lab1", f"systemctl show -P MainPID -P ExecMainStartTimestamp {UNIT}")


def where(fleet: Fleet, agent: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.on("lab1", f"outrider lookup {agent} --json"))["instances"][0]
    return found


def over_http(fleet: Fleet, host: str, port: int) -> str:
    """Which instance answers an HTTP client that knows a local port and nothing else; empty if none does."""
    said = fleet.on(host, f"curl -s -m 2 http://127.0.0.1:{port}/health; true")
    return str(json.loads(said)["instance"]) if said else ""


def test_a_need_is_reached_at_its_old_port_on_a_host_that_does_not_run_it(fleet: Fleet) -> None:
    fleet.wait_well()
    needed = where(fleet, "SystemDigitalTwin")
    host = next(name for name in ("lab1", "lab2") if name != needed["host"])
    until(lambda: over_http(fleet, host, needed["port"]) == needed["instance"], 20)
    pid = f"systemctl show -P MainPID outrider-agent@{needed['instance']}"
    before = fleet.on(needed["host"], pid)
    fleet.on(needed["host"], f"kill -9 $({pid})")
    until(lambda: fleet.on(needed["host"], pid) not in (before, "0\n"), 30)
    until(lambda: over_http(fleet, host, needed["port"]) == needed["instance"], 20)


def test_the_haproxy_that_was_restarted_is_told_anew(fleet: Fleet) -> None:
    needed = where(fleet, "SystemDigitalTwin")
    until(lambda: over_http(fleet, "lab1", needed["port"]), 20)
    fleet.on("lab1", "systemctl restart outrider-local-ports")
    until(lambda: over_http(fleet, "lab1", needed["port"]) == needed["instance"], 20)


def test_a_request_reply_client_follows_servers_that_die_and_hang(fleet: Fleet, old: str, tmp_path: Path) -> None:
    with old_client(fleet, "lab1", PORT, tmp_path / "log") as answering:
        until(lambda: answering()[0], 30)
        first, _ = answering()
        kill(fleet, first, "KILL")
        until(lambda: answering()[0] != first, 10)
        second, died_s = answering()
        until(lambda: len(json.loads(fleet.on("lab1", "outrider lookup OldServer --json"))["instances"]) == 2, 30)
        kill(fleet, second, "STOP")
        until(lambda: answering()[0] != second, 15)
        print(f"without an answer: {died_s * 1000:.0f} ms after kill -9, {answering()[1] * 1000:.0f} ms after a hang")


def kill(fleet: Fleet, host: str, signal: str) -> None:
    fleet.on(host, f"systemctl kill --kill-who=main --signal={signal} 'outrider-agent@OldServer*'")


def test_a_new_need_is_a_reload_and_only_the_shim_may_speak_to_haproxy(fleet: Fleet, old: str) -> None:
    assert running(fleet) == old
    assert fleet.on("lab1", f"systemctl show -P User -P Group {UNIT}").split() == [UNIT, UNIT]
    assert fleet.on("lab1", f"stat -c '%U %G %a' /run/{UNIT}/admin.sock") == f"{UNIT} {UNIT} 660\n"
    assert fleet.on("lab1", f"stat -c '%G %a' /run/{UNIT}") == f"{UNIT} 750\n"
    assert fleet.on("lab1", f"getent group {UNIT}").endswith(":\n")
    mine = fleet.on("lab1", f"runuser -u {UNIT} -- find /var/lib/outrider -type f -readable 2>/dev/null; true")
    assert mine == ""
    assert "disabled" in fleet.on("lab1", "systemctl is-enabled haproxy; true")
    assert "local ports" in fleet.on("lab1", "outrider doctor; true")


def test_turned_off_nothing_is_left(fleet: Fleet, old: str) -> None:
    off = {"fleet_local_ports": False}
    roles = ("--tags", "always,outrider,agents")
    shown = fleet.play("site.yml", "--check", *roles, **off)
    assert (shown.status, running(fleet)) == (0, old), shown.output
    played = fleet.play("site.yml", *roles, **off)
    assert played.status == 0, played.output
    for host in fleet.lab.machines():
        files = f"/run/{UNIT} /run/outrider/local-ports.state /etc/outrider/local-ports.cfg"
        left = f"systemctl cat {UNIT}; ls -d {files}; getent passwd {UNIT}; getent group {UNIT}; pgrep haproxy"
        assert fleet.on(host, f"({left}) 2>/dev/null; true") == ""
        assert "local_ports" not in fleet.on(host, "cat /etc/outrider/outriderd.toml")
