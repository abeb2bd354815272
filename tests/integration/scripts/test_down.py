"""`make down` ends what the embedded mode of its checkout left, and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.integration


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder" / ".outrider"
    (folder / "run").mkdir(parents=True)
    return folder


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def sleeper(started: list[subprocess.Popen[bytes]], **environment: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["sleep", "60"], env={**os.environ, **environment}, start_new_session=True)
    # Its parent must reap it at once, as the supervisor does: a zombie has no environment left to be known by.
    threading.Thread(target=process.wait, daemon=True).start()
    started.append(process)
    return process


def down(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "down.py"), "--folder", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_an_orphaned_agent_is_ended_and_a_users_shell_is_not(
    folder: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    agent = sleeper(started, OUTRIDER_RUNTIME=f"{folder}/run", OUTRIDER_INSTANCE="A-1")
    shell = sleeper(started, OUTRIDER_RUNTIME=f"{folder}/run")
    neighbour = sleeper(started, OUTRIDER_RUNTIME="/elsewhere/run", OUTRIDER_INSTANCE="A-1")
    assert down(folder, "--check").returncode == 3
    done = down(folder)
    assert done.returncode == 0, done.stderr
    assert agent.wait(5) != 0
    assert (shell.poll(), neighbour.poll()) == (None, None)
    assert not folder.exists()


def test_it_asks_the_shim_to_drain(folder: Path) -> None:
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "run" / "outriderd.sock"))
        server.listen()

        def answer() -> None:
            with server.accept()[0] as client:
                asked.append(client.recv(4096))
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=answer)
        thread.start()
        done = down(folder)
        thread.join(5)
    assert done.returncode == 0
    assert asked[0].startswith(b"POST /v1/shutdown ")


def test_it_works_when_all_is_gone(tmp_path: Path) -> None:
    done = down(tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (0, "down: nothing is up\n")
