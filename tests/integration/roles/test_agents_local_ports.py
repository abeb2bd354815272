"""Local ports that a host cannot have are refused before anything changes, all of them at once."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from integration.roles.playing import Outcome, play

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("ss") is None, reason="ss is not installed: apt install iproute2"),
]


def check(tmp_path: Path, numbers: dict[str, int], **variables: Any) -> Outcome:
    """The role's check of a fleet in which `here` needs agents of these main ports; the first two are elsewhere."""
    agents: dict[str, Any] = {
        name: {"hosts": ["here" if index > 1 else f"there{index}"], "ports": {"main": port}}
        for index, (name, port) in enumerate(numbers.items())
    }
    agents["Caller"] = {"hosts": ["here"], "ports": {"main": "auto"}, "needs": list(numbers)}
    path = tmp_path / "fleet.yml"
    defaults = {"command": ["/bin/true"], "mode": "singleton"}
    path.write_text(yaml.safe_dump({"fleet": "small", "defaults": defaults, "groups": {"all": {"agents": agents}}}))
    settled = {"agents_fleet_file": str(path), "agents_group": "all", "agents_local_ports": True}
    settled |= {"outrider_address": "10.0.0.1", **variables}
    hosts = ("here", "there0", "there1")
    return play("agents", tmp_path / "play", settled, facts={"x": ""}, tasks_from="check", hosts=hosts)


@pytest.fixture
def taken() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


@pytest.fixture
def taken_elsewhere() -> Any:
    with socket.create_server(("127.0.0.2", 0)) as sock:
        yield sock.getsockname()[1]


def test_a_port_that_is_taken_or_wanted_twice_is_named(tmp_path: Path, taken: int, taken_elsewhere: int) -> None:
    numbers = {"One": taken_elsewhere, "Two": taken_elsewhere, "Three": taken}
    done = check(tmp_path, numbers, outrider_address="127.0.0.1")
    assert done.status != 0
    assert f"port {taken_elsewhere} would be the local port of both One and Two" in done.output, done.output
    assert f"port {taken}, the local port of Three, is taken by users:" in done.output, done.output
    assert "would share the address 127.0.0.1" in done.output
    assert "Nothing was changed" in done.output


def test_a_port_of_another_address_is_free(tmp_path: Path, taken_elsewhere: int) -> None:
    done = check(tmp_path, {"One": taken_elsewhere})
    assert (done.status, done.changed) == (0, 0), done.output
