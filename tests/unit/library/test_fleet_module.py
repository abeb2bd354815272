"""The modules fleet and fleet_info: arguments in, results and errors out, as Ansible sees them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from unit.library.as_ansible import Run, load, run_module

NOWHERE = {"consul_port": 1}
FILE = """
fleet: small
groups:
  all:
    agents:
      A: {command: [run], hosts: [one], environment: {API_KEY: hunter2}, %s}
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a module as Ansible would, and return what it prints."""

    def call(name: str, **arguments: Any) -> dict[str, Any]:
        return run_module(load(name), arguments, capsys)

    return call


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.yml"
    path.write_text(FILE % "tags: [x]")
    return path


def validated(run: Run, path: Path) -> dict[str, Any]:
    return run("fleet", state="validated", path=str(path), hosts=[{"name": "one", "cpu": None}])


def test_a_right_fleet_is_returned_compiled(run: Run, fleet_file: Path) -> None:
    result = validated(run, fleet_file)
    assert result["changed"] is False
    assert result["definition"]["name"] == "small"
    assert result["definition"]["agents"]["A"]["hosts"] == ["one"]
    assert result["sources"] == []


def test_a_wrong_fleet_is_refused_with_every_problem(run: Run, fleet_file: Path) -> None:
    fleet_file.write_text(FILE % "tagz: [x], count: many")
    result = validated(run, fleet_file)
    assert result["failed"]
    assert len(result["problems"]) == 2
    assert all(problem in result["msg"] for problem in result["problems"])
    assert "did you mean `tags`?" in result["msg"]


def test_check_mode_without_consul_predicts_and_warns(run: Run, fleet_file: Path) -> None:
    definition = validated(run, fleet_file)["definition"]
    result = run("fleet", definition=definition, _ansible_check_mode=True, _ansible_diff=True, **NOWHERE)
    assert result["changed"] is True
    assert result["agents"] == {"added": 1, "changed": 0, "removed": 0, "unchanged": 0}
    assert result["operations"] == ["describe host one", "add A: A-1 on one"]
    assert "predicted as if nothing were published yet" in str(result["warnings"])
    assert "name: A" in result["diff"][0]["after"]
    assert "hunter2" not in str(result["diff"])


def test_without_consul_nothing_is_published(run: Run, fleet_file: Path) -> None:
    result = run("fleet", definition=validated(run, fleet_file)["definition"], **NOWHERE)
    assert result["failed"]
    assert "http://127.0.0.1:1 does not answer" in result["msg"]


def test_what_is_no_definition_is_refused(run: Run) -> None:
    result = run("fleet", definition={"agents": 5}, **NOWHERE, _ansible_check_mode=True)
    assert "not a compiled fleet" in result["msg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "state is present but all of the following are missing: definition"),
        ({"state": "validated", "path": "f"}, "state is validated but all of the following are missing: hosts"),
        ({"state": "gone"}, "value of state must be one of: validated, present, absent"),
    ],
)
def test_missing_arguments_are_named(run: Run, arguments: dict[str, Any], message: str) -> None:
    assert message in run("fleet", **arguments)["msg"]


def test_a_token_file_that_all_may_read_is_refused(run: Run, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    token.chmod(0o644)
    result = run("fleet_info", consul_token_file=str(token), **NOWHERE)
    assert "may be read by everyone" in result["msg"]


def test_fleet_info_without_consul_fails(run: Run) -> None:
    assert "does not answer" in run("fleet_info", **NOWHERE)["msg"]


@pytest.mark.parametrize("name", ["fleet", "fleet_info"])
def test_an_interpreter_without_outrider_is_named(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    result = run(name, **({"state": "absent"} if name == "fleet" else {}))
    assert "Failed to import the required Python library (outrider)" in result["msg"]
    assert "set ansible_python_interpreter" in result["msg"]
