"""Sample agents as the shim starts them: real processes, real sockets, a real catalogue."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outrider.discovery.catalogue import CatalogueWriter
from outrider.discovery.records import Entry, Instance

AGENTS = Path(__file__).parents[2] / "examples" / "agents"


class Running:
    """One agent's process. Port 0 lets the kernel choose; the agent logs the choice when it serves."""

    def __init__(self, module: str, name: str, folder: Path, **environment: str) -> None:
        self.log = folder / f"{name}.log"
        env = {"PATH": os.defpath, "PYTHONPATH": str(AGENTS), "OUTRIDER_AGENT": name, "OUTRIDER_INSTANCE": f"{name}-1"}
        env |= {"OUTRIDER_ADDRESS": "127.0.0.1", "OUTRIDER_PORT": "0", **environment}
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", module]
            self.process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
        self.port = int(eventually(lambda: re.search(r"main (\d+)", self.log.read_text()), self.log)[1])

    def ask(self, method: str, path: str, document: Any = None, body: bytes | None = None) -> tuple[int, Any]:
        """Status and JSON of one request."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, json.dumps(document).encode() if body is None else body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def eventually(find: Callable[[], Any], log: Path, within_s: float = 60) -> Any:
    """What `find` returns, once that is true."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if found := find():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {within_s} s; the agent's log: {log.read_text()}")


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    agents: list[Running] = []

    def start_one(name: str, module: str = "sample_agent", **environment: str) -> Running:
        agents.append(Running(module, name, tmp_path, **environment))
        return agents[-1]

    yield start_one
    for agent in agents:
        agent.end()


def test_it_serves_and_survives_bad_input(start: Start) -> None:
    agent = start("Worker")
    assert agent.ask("GET", "/health")[1]["status"] == "ready"
    assert agent.ask("POST", "/work", {"n": 100})[1]["result"] == 25
    assert agent.ask("POST", "/echo", {"a": [1]}) == (200, {"a": [1]})
    for method, path, body, status in (
        ("POST", "/work", b"{", 400),
        ("POST", "/work", b'{"n": -1}', 422),
        ("POST", "/state", b'{"add": "x"}', 422),
        ("GET", "/work", b"", 405),
        ("GET", "/nothing", b"", 404),
        ("POST", "/infer", b"{}", 501),
    ):
        answered, document = agent.ask(method, path, body=body)
        assert (answered, bool(document["error"])) == (status, True)
    assert agent.ask("GET", "/health")[0] == 200


def test_a_connection_serves_many_requests(start: Start) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", start("Worker").port, timeout=5)) as connection:
        connection.connect()
        opened = connection.sock
        for number in range(50):
            connection.request("POST", "/echo", str(number))
            assert connection.getresponse().read() == str(number).encode()
        assert connection.sock is opened


def test_a_chain_goes_round_a_cycle_once(start: Start, tmp_path: Path) -> None:
    needs = {"Coordinator": "Memory,Twin", "Memory": "Twin", "Twin": "Coordinator,Gone"}
    agents = {
        name: start(name, OUTRIDER_NEEDS=wanted, OUTRIDER_RUNTIME=str(tmp_path)) for name, wanted in needs.items()
    }
    writer = CatalogueWriter(tmp_path)
    writer.publish(
        {
            name: Entry(name, (Instance(name, f"{name}-1", "local", "127.0.0.1", agent.port, {"main": agent.port}),))
            for name, agent in agents.items()
        }
    )
    status, tree = agents["Coordinator"].ask("POST", "/chain", {"deadline_ms": 10_000})
    assert status == 200
    assert sorted(tree["visited"]) == ["Coordinator", "Gone", "Memory", "Twin"]
    assert (tree["answered"], tree["failed"]) == (3, 1)  # nobody serves Gone
    agents["Twin"].end()
    _, tree = agents["Coordinator"].ask("POST", "/chain", {"deadline_ms": 10_000})
    assert (tree["answered"], tree["failed"]) == (2, 1)


def test_its_state_outlives_a_kill(start: Start, tmp_path: Path) -> None:
    state = {"OUTRIDER_STATE": str(tmp_path / "state")}
    agent = start("Keeper", **state)
    for number in range(5):
        agent.ask("POST", "/state", {"item": number})
    agent.end()
    _, kept = start("Keeper", **state).ask("GET", "/state")
    assert (kept["counter"], kept["items"], kept["durable"]) == (5, [0, 1, 2, 3, 4], True)


def test_its_heart_beats_each_second(start: Start, tmp_path: Path) -> None:
    heartbeat = tmp_path / "heartbeat"
    agent = start("Worker", OUTRIDER_HEARTBEAT=str(heartbeat))
    first = eventually(lambda: heartbeat.exists() and heartbeat.stat().st_mtime_ns, agent.log)
    eventually(lambda: heartbeat.stat().st_mtime_ns > first, agent.log, within_s=5)


def test_it_finishes_what_is_in_flight_before_it_ends(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as slow:
        port = slow.getsockname()[1]
        CatalogueWriter(tmp_path).publish(
            {"Slow": Entry("Slow", (Instance("Slow", "Slow-1", "local", "127.0.0.1", port, {"main": port}),))}
        )
        agent = start("Caller", OUTRIDER_NEEDS="Slow", OUTRIDER_RUNTIME=str(tmp_path))
        answers: list[tuple[int, Any]] = []
        caller = threading.Thread(target=lambda: answers.append(agent.ask("POST", "/chain", {"deadline_ms": 20_000})))
        caller.start()
        slow.settimeout(20)
        need = slow.accept()[0]
        need.settimeout(20)
        assert need.recv(65_536).startswith(b"POST /chain")  # a close with bytes unread would be a reset
        agent.process.send_signal(signal.SIGTERM)
        eventually(lambda: "finish 1 in flight" in agent.log.read_text(), agent.log)
        with need:
            need.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"agent": "Slow", "answered": 1, "failed": 0}')
    assert agent.process.wait(10) == 0
    caller.join(5)
    assert (answers[0][0], answers[0][1]["answered"]) == (200, 2)


def test_what_never_answers_does_not_hold_up_the_end(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        port = hung.getsockname()[1]
        CatalogueWriter(tmp_path).publish(
            {"Hung": Entry("Hung", (Instance("Hung", "Hung-1", "local", "127.0.0.1", port, {"main": port}),))}
        )
        agent = start("Caller", OUTRIDER_NEEDS="Hung", OUTRIDER_RUNTIME=str(tmp_path))
        with socket.create_connection(("127.0.0.1", agent.port)) as caller:
            caller.sendall(b"POST /chain HTTP/1.1\r\nContent-Length: 22\r\n\r\n" + b'{"deadline_ms": 20000}')
            hung.settimeout(20)
            with hung.accept()[0]:
                agent.process.send_signal(signal.SIGTERM)
                assert agent.process.wait(10) == 0


@pytest.mark.parametrize("port", ["", "70000", "abc"])
def test_a_wrong_environment_is_named(tmp_path: Path, port: str) -> None:
    env = {"PATH": os.defpath, "PYTHONPATH": str(AGENTS), "OUTRIDER_PORT": port}
    done = subprocess.run([sys.executable, "-m", "sample_agent"], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "OUTRIDER_PORT" in done.stderr


def test_a_model_agent_is_healthy_when_its_model_has_answered(start: Start) -> None:
    agent = start("Detector", "model_agent", OUTRIDER_MODEL="magika")
    eventually(lambda: agent.ask("GET", "/health")[0] == 200, agent.log)
    status, answer = agent.ask(
        "POST", "/infer", {"text": "import os\n\n\ndef run() -> None:\n    print(os.getcwd())\n"}
    )
    assert (status, answer["label"], answer["model"]) == (200, "python", "magika")
    assert agent.ask("POST", "/infer", {"text": 7})[0] == 422
    assert agent.ask("GET", "/health")[0] == 200


def test_a_model_that_is_not_there_is_named_by_health(start: Start) -> None:
    agent = start("Detector", "model_agent", OUTRIDER_MODEL="gpt")
    eventually(lambda: agent.ask("GET", "/health")[1]["status"] == "failed", agent.log)
    status, health = agent.ask("GET", "/health")
    assert status == 503
    assert "'gpt'" in health["detail"]
    assert agent.ask("POST", "/infer", {})[0] == 503
