"""`outrider fleet ...` as a person and as a program sees it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import yaml

from outrider.cli.fleet_commands import add_fleet_commands
from outrider.errors import FleetError, OutriderError, UnknownAgent

STARTUP = """
agent_groups:
  core:
    A: {script_path: a.py, port: 7000, health_check_port: 8000}
    B: {script_path: b.py, port: 7001, health_check_port: 8001, dependencies: [A]}
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.yml"
    path.write_text(
        "fleet: lab\ndefaults: {module: m, ports: {main: auto, health: auto}}\ngroups:\n  g:\n    agents:\n"
        "      A: {needs: [{agent: B, required: false}]}\n      B: {needs: [A]}\n      C: {needs: [A]}\n"
    )
    return path


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_fleet_commands(parser.add_subparsers())
    args = parser.parse_args(["fleet", *map(str, words)])
    return int(args.handler(args))


def test_validate_says_what_there_is(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("validate", fleet) == 0
    out, err = capsys.readouterr()
    assert out == "fleet lab is valid: 3 agents, 3 instances, 3 needs, 1 cycle\n"
    assert "was not checked" in err
    assert run("validate", fleet, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["agents"], found["cycles"]) == (True, 3, [["A", "B"]])


def test_validate_checks_secrets_when_asked(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.write_text(fleet.read_text().replace("B: {", "B: {secrets: {KEY: /nowhere/key}, "))
    assert run("validate", fleet) == 0
    capsys.readouterr()
    assert run("validate", fleet, "--secrets", "--json") == 1
    assert "found /nowhere/key, which is no file" in json.loads(capsys.readouterr().out)["problems"][0]
    with pytest.raises(FleetError):
        run("validate", fleet, "--secrets")


def test_show_lists_agents_or_one_of_them(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", fleet) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["A", "replicated", "main", "auto,", "health", "auto", "B?"]
    assert run("show", fleet, "A") == 0
    whole = yaml.safe_load(capsys.readouterr().out)
    assert whole["probes"][0] == {"type": "http", "port": "health", "path": "/health", "interval_s": 0.5,
                                  "timeout_s": 0.4, "failures": 2, "hang": "kill"}  # fmt: skip
    assert whole["needed_by"] == ["B", "C"]
    assert run("show", fleet, "--agent", "A", "--json") == 0
    assert json.loads(capsys.readouterr().out)["module"] == "m"
    with pytest.raises(UnknownAgent, match="no agent D"):
        run("show", fleet, "D")
    with pytest.raises(OutriderError, match="one PATH and one NAME") as caught:
        run("show", "A", "B")
    assert caught.value.exit_code == 2


def test_graph_shows_waves_and_draws_cycles(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("graph", fleet) == 0
    assert capsys.readouterr().out == "wave 1 (2): A, B\nwave 2 (1): C\ncycle, started together: A, B\n"
    assert run("graph", fleet, "--dot") == 0
    out = capsys.readouterr().out
    assert '"A" -> "B" [color=red, style=dashed];' in out
    assert '"C" -> "A";' in out
    assert run("graph", fleet, "--json") == 0
    assert json.loads(capsys.readouterr().out)["waves"] == [["A", "B"], ["C"]]


def test_import_has_the_promised_keys_and_one_entry_an_instance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "main_startup.yaml", tmp_path / "pc2_startup.yaml"]
    for file in files:
        file.write_text(STARTUP)
    assert run("import", *files, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"hosts", "agents", "warnings"}
    assert len(found["agents"]) == 4
    assert {"name", "host", "port", "health_port", "needs"} <= found["agents"][0].keys()


def test_import_writes_a_file_that_is_valid_once_it_says_what_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "pc2_startup.yaml", tmp_path / "fleet.yml"
    file.write_text(STARTUP)
    assert run("import", file, "-o", out, "--host", f"{file}=gpu9", "--name", "lab") == 0
    assert "2 agents, 2 instances on gpu9" in capsys.readouterr().err
    made = yaml.safe_load(out.read_text())
    made["defaults"]["module"] = "m"
    before = out.read_text()
    with pytest.raises(OutriderError, match="is there already"):
        run("import", file, "-o", out)
    assert out.read_text() == before
    assert run("import", file, "-o", out, "--force") == 0
    out.write_text(yaml.safe_dump(made))
    assert run("validate", out) == 0
    with pytest.raises(OutriderError, match="expected FILE=NAME"):
        run("import", file, "--host", "other=x")


def test_schema_is_json_and_the_reference_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Outrider fleet file"
    assert run("schema", "--reference") == 0
    assert capsys.readouterr().out.startswith("# The fleet file")
    assert run("schema", "--reference", "--json") == 0
    assert json.loads(capsys.readouterr().out)["reference"].startswith("# The fleet file")
