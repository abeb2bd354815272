"""The role `consul` runs a real Consul, changes nothing the second time, and gives way to a taken port."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.roles.playing import ROOT, play

pytestmark = pytest.mark.integration


def find_consul() -> str:
    """A real Consul: named by the environment, or in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    found = [
        os.environ.get("OUTRIDER_TEST_CONSUL", ""),
        *map(str, cache.glob("outrider/consul/*/consul")),
        shutil.which("consul"),
    ]
    return next(path for path in found if path)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, because the supervisor's socket is in it, with a space in it."""
    folder = Path(tempfile.mkdtemp(prefix="a folder"))
    yield folder
    subprocess.run([sys.executable, ROOT / "scripts" / "down.py", "--folder", folder], check=True)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def variables(folder: Path, taken: int) -> dict[str, Any]:
    free = {}
    for name in ("dns", "server", "serf_lan"):
        with socket.create_server(("127.0.0.1", 0)) as server:
            free[name] = server.getsockname()[1]
    return {
        "consul_folder": str(folder),
        "consul_supervisor": "supervisord",
        "consul_install_method": "binary",
        "consul_binary_path": find_consul(),
        "consul_server": True,
        "consul_free_ports": True,
        "consul_ports": {"http": taken, **free},
    }


def ask(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/{path}", timeout=5) as answer:
        return json.load(answer)


def test_it_runs_changes_nothing_twice_and_restarts_on_a_change(
    tmp_path: Path, folder: Path, taken: int, variables: dict[str, Any]
) -> None:
    first = play("consul", tmp_path / "play", variables)
    assert first.status == 0, first.output
    assert f"port {taken} is taken by" in first.output
    assert f"(pid {os.getpid()})" in first.output
    port = json.loads((folder / "state" / "ports.json").read_text())["consul_http"]
    assert ask(port, "status/leader")
    running = ask(port, "agent/self")
    assert running["DebugConfig"]["GossipLANProbeInterval"] == "250ms"

    again = play("consul", tmp_path / "play", variables)
    assert (again.status, again.changed) == (0, 0), again.output

    variables["consul_log_level"] = "WARN"
    changed = play("consul", tmp_path / "play", variables)
    assert changed.status == 0, changed.output
    assert ask(port, "agent/self")["DebugConfig"]["Logging"]["LogLevel"] == "WARN"

    down = subprocess.run([sys.executable, ROOT / "scripts" / "down.py", "--folder", folder], check=False)
    assert down.returncode == 0
    assert not folder.exists()
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in read(p)]


def read(path: Path) -> bytes:
    """What the file holds; nothing if its process just ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_taken_port_is_refused_where_ports_are_fixed(tmp_path: Path, taken: int, variables: dict[str, Any]) -> None:
    variables["consul_free_ports"] = False
    outcome = play("consul", tmp_path / "play", variables, "--check")
    assert outcome.status != 0
    assert f"consul_http: port {taken} is taken by" in outcome.output


def test_what_the_installed_program_finds_invalid_never_goes_live(
    tmp_path: Path, folder: Path, variables: dict[str, Any]
) -> None:
    variables["consul_extra_config"] = {"no_such_key": True}
    outcome = play("consul", tmp_path / "play", variables)
    assert outcome.status != 0
    assert "no_such_key" in outcome.output
    assert not (folder / "etc" / "consul" / "consul.json").exists()
