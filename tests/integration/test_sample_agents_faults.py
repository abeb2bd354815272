"""What sample agents must bear: rude clients, load, a stuck loop, SIGTERM with work in flight, kill -9, no network."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
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
START_S = 60.0


class Process:
    """One agent. `statuses`: what its health page said, from its first answer on."""

    def __init__(self, module: str, folder: Path, **env: str) -> None:
        self.heartbeat = folder / "beat"
        self.log = folder / "log"
        self.statuses: list[str] = []
        ours = {"PATH": os.defpath, "PYTHONPATH": str(AGENTS), "OUTRIDER_HEARTBEAT": str(self.heartbeat)}
        ports = {"OUTRIDER_PORT": "0", "OUTRIDER_PORT_HEALTH": "0"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module], cwd=AGENTS, env=ours | ports | env, stdout=log, stderr=log
            )

    def until(self, status: str) -> Process:
        """Wait for its health page to say `status`."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                self.statuses.append(self.ask("GET", "/health", port="health")[1]["status"])
                if self.statuses[-1] == status:
                    return self
            time.sleep(0.01)
        raise AssertionError(f"{self.statuses}\n{self.log.read_text()}")

    def port(self, name: str = "main") -> int:
        """The port that the kernel gave it, from its log. Raises ConnectionError before it is there."""
        if found := re.search(rf"\b{name} (\d+)", self.log.read_text()):
            return int(found[1])
        raise ConnectionError("it does not serve yet")

    def send(self, method: str, path: str, body: bytes | None = None, port: str = "main") -> tuple[int, bytes]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port(port), timeout=15)) as connection:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()

    def ask(self, method: str, path: str, document: object = None, port: str = "main") -> tuple[int, Any]:
        status, body = self.send(method, path, None if document is None else json.dumps(document).encode(), port)
        return status, json.loads(body)


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start agents; they are ended with the test."""
    started: list[Process] = []

    def begin(module: str = "sample_agent", **env: str) -> Process:
        folder = tmp_path / f"agent{len(started)}"
        folder.mkdir()
        started.append(Process(module, folder, **env))
        return started[-1]

    yield begin
    for agent in started:
        agent.process.kill()
        agent.process.wait()


def test_requests_sent_ahead_are_all_answered(start: Start) -> None:
    agent = start().until("ready")
    with socket.create_connection(("127.0.0.1", agent.port()), timeout=5) as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\nContent-Length: 4\r\n\r\nping" * 1000)
        data = b""
        while data.count(b"ping") < 1000:
            chunk = sock.recv(65536)
            assert chunk, "closed early"
            data += chunk
    assert data.count(b"HTTP/1.1 200 OK") == 1000


def test_a_reply_larger_than_a_socket_holds_arrives_whole(start: Start) -> None:
    agent = start().until("ready")
    body = os.urandom(4 * 1024 * 1024)
    assert agent.send("POST", "/echo", body) == (200, body)
    status, answer = agent.send("POST", "/echo", body + b"1")
    assert (status, b"larger than" in answer) == (413, True)  # and not a reset, though nobody reads that body


def test_nothing_that_a_client_sends_ends_it(start: Start) -> None:
    agent = start().until("ready")
    half = b"POST /echo HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"
    computing = b'POST /work HTTP/1.1\r\nContent-Length: 13\r\n\r\n{"n":2000000}'
    for data in (b"\0" * 100, b"GET / HTTP/1.1\r\n" * 5000, b"\r\n" * 50, half, computing):
        with socket.create_connection(("127.0.0.1", agent.port()), timeout=5) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # leave with a reset
            with contextlib.suppress(ConnectionError):
                sock.sendall(data)
    assert agent.ask("GET", "/health")[1]["status"] == "ready"
    assert agent.process.poll() is None


def test_health_answers_while_every_worker_is_busy(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        runtime = publish(tmp_path / "run", Hung=hung.getsockname()[1])
        agent = start(OUTRIDER_NEEDS="Hung", OUTRIDER_RUNTIME=runtime).until("ready")
        statuses: list[int] = []
        callers = [
            threading.Thread(target=lambda: statuses.append(agent.ask("POST", "/chain", {"deadline_ms": 3000})[0]))
            for _ in range(60)
        ]
        for caller in callers:
            caller.start()
        hung.settimeout(10)
        asked = [hung.accept()[0] for _ in range(8)]  # every worker waits for an answer that never comes
        assert agent.ask("GET", "/health", port="health")[0] == 200
        assert 200 not in statuses  # it did not wait for a worker
        for caller in callers:
            caller.join()
        for connection in asked:
            connection.close()
    assert set(statuses) == {200, 503}  # what cannot wait is refused at once, never dropped
    assert len(statuses) == 60


def test_the_heartbeat_moves_only_with_the_loop(start: Start) -> None:
    agent = start().until("ready")
    first = agent.heartbeat.stat().st_mtime_ns
    deadline = time.monotonic() + 5
    while agent.heartbeat.stat().st_mtime_ns == first:
        assert time.monotonic() < deadline, "no beat"
        time.sleep(0.02)
    agent.process.send_signal(signal.SIGSTOP)
    stopped = agent.heartbeat.stat().st_mtime_ns
    time.sleep(1.5)  # longer than a beat; that nothing happens can only be waited for
    assert agent.heartbeat.stat().st_mtime_ns == stopped


def test_sigterm_turns_health_off_and_finishes_what_is_in_flight(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        runtime = publish(tmp_path / "run", Hung=hung.getsockname()[1])
        agent = start(OUTRIDER_NEEDS="Hung", OUTRIDER_RUNTIME=runtime).until("ready")
        answers: list[tuple[int, Any]] = []
        caller = threading.Thread(target=lambda: answers.append(agent.ask("POST", "/chain", {"deadline_ms": 1200})))
        caller.start()
        hung.settimeout(10)
        in_flight, _ = hung.accept()  # its need is being asked, and will never answer
        with in_flight:
            agent.process.terminate()
            while (health := agent.ask("GET", "/health", port="health"))[1]["status"] != "draining":
                pass
            assert health[0] == 503
            assert agent.ask("POST", "/work", {})[0] == 503
            caller.join()
            assert agent.process.wait(5) == 0
    assert answers[0][0] == 200
    assert "no answer" in answers[0][1]["needs"][0]["error"]


def test_an_idle_agent_ends_at_once(start: Start) -> None:
    agent = start().until("ready")
    began = time.monotonic()
    agent.process.terminate()
    assert agent.process.wait(5) == 0
    assert time.monotonic() - began < 1.5  # who has work in flight takes up to 2 s


def test_a_taken_port_is_named(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        agent = start(OUTRIDER_PORT=str(port))
        assert agent.process.wait(10) == 1
    assert f"port {port} (main) of 127.0.0.1: Address already in use" in agent.log.read_text()


def test_state_is_whole_after_kill_9_at_any_moment(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    known = 0  # long items, so that most of the time is spent writing
    for pause_s in (0.05, 0.11, 0.17, 0.23):
        agent = start(OUTRIDER_STATE=str(folder)).until("ready")
        assert agent.ask("GET", "/state")[1]["counter"] == known
        killer = threading.Timer(pause_s, agent.process.kill)
        killer.start()
        with contextlib.suppress(OSError, http.client.HTTPException):
            for number in itertools.count():
                known = agent.ask("POST", "/state", {"item": f"{number}" * 600})[1]["counter"]
        killer.join()
        stored = json.loads((folder / "state.json").read_text())["counter"]
        assert stored - known in (0, 1)  # the last one may be stored and not acknowledged
        known = stored
    assert known > 4


def publish(folder: Path, **ports: int) -> str:
    """A catalogue as the shim writes it, with one instance of each agent."""
    folder.mkdir()
    writer = CatalogueWriter(folder)
    writer.publish(
        {
            name: Entry(name, (Instance(name, f"{name}-1", "local", "127.0.0.1", port, {"main": port}),))
            for name, port in ports.items()
        }
    )
    writer.close()
    return str(folder)


def test_a_model_agent_is_starting_until_its_model_has_answered(start: Start) -> None:
    agent = start("model_agent", OUTRIDER_MODEL="langid").until("ready")
    assert agent.statuses[0] == "starting"
    assert agent.ask("POST", "/infer", {"text": "Das ist ein deutscher Satz."})[1]["language"] == "de"


@pytest.mark.parametrize(
    ("model", "payload"),
    [
        ("minilm", {"texts": []}),
        ("magika", {"text": "short"}),
        ("langid", {"text": 3}),
        ("vad", {"pcm16": "AAAA", "rate": 8000}),
        ("orientation", {"image": "%%%"}),
        ("ocr", {"image": "bm8gcGljdHVyZQ=="}),
    ],
)
def test_a_wrong_payload_is_refused_and_named(start: Start, model: str, payload: dict[str, Any]) -> None:
    agent = start("model_agent", OUTRIDER_MODEL=model).until("ready")
    status, answer = agent.ask("POST", "/infer", payload)
    assert status == 422
    assert any(key in answer["error"] for key in payload) or "bytes" in answer["error"]


def test_models_need_no_network() -> None:
    """All of them load and answer where there is no interface at all."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("this user may not make a network namespace")
    program = (
        "import importlib, model_agent\n"
        "for name in model_agent.MODELS:\n"
        "    model = importlib.import_module(f'models.{name}').load()\n"
        "    assert model.infer(model.warm_up), name\n"
        "    print(name)\n"
    )
    env = {"PATH": os.defpath, "PYTHONPATH": str(AGENTS)}
    command = ["unshare", "-rn", sys.executable, "-c", program]
    ended = subprocess.run(command, env=env, cwd=AGENTS, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["langid", "magika", "minilm", "ocr", "orientation", "vad"]
