"""`outrider risk` on a fleet file: what people and programs see, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outrider.cli.main import main

FLEET = """
fleet: risky
defaults: {command: [sleep, inf], ports: {call: auto}, resources: {cpu: 1, memory_mib: 1024}, code: {path: code}}
groups:
  all:
    agents:
      Store: {mode: singleton, state: true, tier: core}
      Web: {count: 3, tier: tier-3, needs: [Store]}
      Pinned: {hosts: [one], tier: tier-3}
"""
ROOM = {"outrider_cpu": 16, "outrider_memory_mib": 16384}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fleet file and an inventory, which Ansible would read in seconds."""
    hosts = {"one": ROOM, "two": ROOM}
    listed = {"all": {"hosts": list(hosts)}, "_meta": {"hostvars": hosts}}
    monkeypatch.setattr("outrider.fleet.inventory.read_inventory", lambda path: listed)
    (tmp_path / "fleet.yml").write_text(FLEET)
    (tmp_path / "hosts.yml").write_text("")
    for name in ("code", "next"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text("import sqlite3\n")
    (tmp_path / "next/more.py").write_text("x = 1\n")
    return tmp_path


def ask(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, Any]:
    code = main(["risk", *map(str, words), "--json"])
    out = capsys.readouterr()
    return code, json.loads(out.out or out.err)


def test_the_fleet_is_one_table_with_the_riskiest_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["risk", "--fleet", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["AGENT", "POINTS", "UNKNOWN", "BAND", "STRATEGY", "MOST", "OF", "IT"]
    assert [line.split()[0] for line in lines[1:4]] == ["Store", "Web", "Pinned"]
    assert "state single writer +3" in lines[1]
    assert any("not yet known" in line for line in lines)
    [why] = [line for line in lines if line.startswith("  of each")]
    assert why == "  of each A1, A2, A3, A4, A5, I4, I5, I6, L3, L4: only the fleet file was looked at"


def test_one_agent_is_shown_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["risk", "Web", "--fleet", str(folder), "--to", "two"])
    out = capsys.readouterr().out
    assert "from one to two (it was named)" in out
    for word in ("dependants", "it uses sqlite3 (main.py:1)", "NOT KNOWN", "only the fleet file was looked at",
                 "backup of state", "probability of failure: not yet known"):  # fmt: skip
        assert word in out


def test_programs_get_points_evidence_and_gates(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = ask(capsys, "Web", "--fleet", folder)
    assert code == 0
    assert found["points"] == found["likelihood"] + found["impact"] + found["extra"]
    assert found["unknown"] == sum(each["points"] for each in found["contributions"] if not each["measured"])
    assert found["band"]["strategy"] == "staged"
    assert {gate["name"] for gate in found["gates"]} >= {"judge", "backup of configuration"}
    code, every = ask(capsys, "--fleet", folder)
    assert (code, [each["agent"] for each in every]) == (0, ["Store", "Web", "Pinned"])


def test_what_may_not_be_moved_exits_with_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = ask(capsys, "Pinned", "--fleet", folder, "--to", "two")
    assert (code, found["band"]["name"], found["stop"]) == (1, "no-go", "two: is not among the hosts of Pinned")
    assert main(["risk", "--fleet", str(folder), "--to", "two"]) == 0
    assert "is not among the hosts of Pinned" in capsys.readouterr().out


def test_new_code_is_compared_with_the_present_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = ask(capsys, "Web", "--fleet", folder, "--new", folder / "next", "--readable")
    by_key = {each["key"]: each for each in found["contributions"]}
    assert by_key["L1"]["evidence"] == "1 line added or removed in 1 file"
    assert (by_key["L2"]["points"], by_key["A6"]["said"]) == (0, "no")
    assert by_key["L5"]["evidence"].startswith("2 files")
    _, blind = ask(capsys, "Web", "--fleet", folder, "--new", folder / "next")
    assert "A6" in [each["key"] for each in blind["contributions"] if not each["measured"]]


def test_without_an_inventory_nothing_is_known_of_hosts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "hosts.yml").unlink()
    _, found = ask(capsys, "Web", "--fleet", folder / "fleet.yml")
    room = next(each for each in found["contributions"] if each["key"] == "L7")
    assert (room["measured"], room["evidence"]) == (False, "no hosts are known: name an inventory")


def test_source_names_the_code_of_one_agent(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = ask(capsys, "Web", "--fleet", folder, "--source", folder / "next")
    assert next(each for each in found["contributions"] if each["key"] == "L5")["evidence"].startswith("2 files")
    _, gone = ask(capsys, "Web", "--fleet", folder, "--source", folder / "gone")
    found = next(each for each in gone["contributions"] if each["key"] == "L5")
    assert (found["measured"], found["evidence"]) == (False, f"{folder / 'gone'}: No such file or directory")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--source", "x"), 2, "are about one agent"),
        (("--no-readable",), 2, "are about one agent"),
        (("--prometheus", "http://x"), 2, "knows what runs"),
        (("Wbe",), 1, "no agent Wbe"),
        (("Web", "--to", "three"), 1, "no host three"),
        (("Web", "--new", "gone"), 1, "No such file"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, said: str
) -> None:
    found, error = ask(capsys, *words, "--fleet", folder)
    assert found == code
    assert said in error["error"]


def test_without_consul_the_exit_code_is_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    assert ask(capsys, "--runtime", tmp_path)[0] == 3
