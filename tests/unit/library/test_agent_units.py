"""The module agent_units as Ansible sees it; what systemd is told is tested on the hosts of the lab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unit.library.as_ansible import Run, load, run_module

DEFINITION = {
    "name": "small",
    "agents": {"Echo": {"command": ["echo"], "user": "alice"}, "Plain": {"command": ["echo"]}},
    "hosts": [{"name": "here"}, {"name": "there"}],
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the module as Ansible would, on a folder of the test's, and return what it prints."""

    def call(*, check: bool = False, definition: dict[str, Any] = DEFINITION, host: str = "here") -> dict[str, Any]:
        arguments = {
            "definition": definition,
            "host": host,
            "units_folder": str(tmp_path),
            "_ansible_check_mode": check,
        }
        module = load("agent_units")
        module.SYSTEMD = tmp_path / "no-systemd"
        return run_module(module, arguments, capsys)

    return call


def test_check_mode_predicts_what_the_run_does_and_a_second_run_does_nothing(run: Run, tmp_path: Path) -> None:
    # The second one is for a migration, which starts it beside the first.
    path, more = (tmp_path / f"outrider-agent@Echo-{number}.service.d" / "50-outrider.conf" for number in (1, 2))
    predicted = run(check=True)
    assert not path.exists()
    done = run()
    assert predicted == done
    assert done["changed"]
    assert done["written"] == [str(path), str(more)]
    assert "User=alice" in done["diff"][0]["after"]
    assert "User=alice" in path.read_text()
    again = run()
    assert (again["changed"], again["diff"]) == (False, [])


def test_what_may_no_longer_run_here_is_removed(run: Run, tmp_path: Path) -> None:
    run()
    moved = {**DEFINITION, "agents": {"Echo": {"command": ["echo"], "user": "alice", "hosts": ["there"]}}}
    done = run(definition=moved)
    gone = [str(tmp_path / f"outrider-agent@Echo-{number}.service.d" / "50-outrider.conf") for number in (1, 2)]
    assert done["removed"] == gone
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_one_clear_error_and_write_nothing(run: Run, tmp_path: Path) -> None:
    refused = run(definition={**DEFINITION, "agents": {"Echo": {"command": ["echo"], "user": "root"}}})
    assert "agent Echo: user root" in refused["msg"]
    unknown = run(host="nowhere")
    assert "nowhere" in unknown["msg"]
    assert "here, there" in unknown["msg"]
    assert refused["failed"]
    assert unknown["failed"]
    assert list(tmp_path.iterdir()) == []
