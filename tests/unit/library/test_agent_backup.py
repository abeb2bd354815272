"""The module agent_backup: arguments in, results and errors out, as Ansible sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unit.library.as_ansible import Run, load, run_module
from unit.migration.backup.scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path)
    made.fill()
    (tmp_path / "outriderd.toml").write_text(
        f"fleet = 'lab'\nhost = 'h'\nruntime_dir = '{made.config.runtime_dir}'\n"
        f"state_dir = '{made.config.state_dir}'\nlog_dir = '{made.config.log_dir}'\n[consul]\nport = 1\n"
    )
    return made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], scene: Scene) -> Run:
    """Run the module as Ansible would, and return what it prints."""

    def call(**arguments: Any) -> dict[str, Any]:
        arguments = {"config_file": str(scene.folder / "outriderd.toml"), "levels": ["state"], **arguments}
        return run_module(load("agent_backup"), arguments, capsys)

    return call


def test_twice_is_once(run: Run, scene: Scene) -> None:
    foreseen = run(_ansible_check_mode=True, _ansible_diff=True)
    assert (foreseen["changed"], foreseen["made"]) == (True, ["state of A-1"])
    assert foreseen["diff"][0]["after"] == "a new backup of state of A-1\n"
    assert not scene.vault.root.exists()
    made = run()
    assert (made["changed"], made["made"]) == (True, ["state of A-1"])
    assert made["backups"][0]["count"] == 4
    again = run()
    assert (again["changed"], again["made"]) == (False, [])
    assert again["backups"][0]["id"] == made["backups"][0]["id"]


def test_a_damaged_backup_fails_by_name(run: Run, scene: Scene) -> None:
    id = run()["backups"][0]["id"]
    assert run(state="verified")["changed"] is False
    scene.object_of(b"one").write_bytes(b"two")
    failed = run(state="verified")
    assert failed["failed"]
    assert f"backup {id}: notes" in failed["msg"]
    assert failed["failed_backups"][0]["level"] == "state"


def test_restored_twice_is_once(run: Run, scene: Scene) -> None:
    run()
    (scene.state / "notes").write_text("spoilt")
    foreseen = run(state="restored", name="A-1", _ansible_check_mode=True)
    assert (foreseen["changed"], (scene.state / "notes").read_text()) == (True, "spoilt")
    restored = run(state="restored", name="A-1")
    assert (restored["changed"], (scene.state / "notes").read_text()) == (True, "one")
    assert Path(restored["kept"], "notes").read_text() == "spoilt"
    assert run(state="restored", name="A-1")["changed"] is False


def test_pruned_says_what_goes(run: Run, scene: Scene) -> None:
    first = run()["backups"][0]["id"]
    (scene.state / "notes").write_text("two")
    run()
    assert run(state="pruned", _ansible_check_mode=True)["removed"] == [first]
    assert run(state="pruned")["changed"] is True
    assert run(state="pruned")["changed"] is False


def test_without_consul_what_cannot_be_made_is_named(run: Run) -> None:
    failed = run(levels=["state", "configuration"])
    assert failed["failed"]
    assert failed["made"] == ["state of A-1"]
    assert failed["failed_backups"][0]["exit_code"] == 3


def test_a_restore_names_what(run: Run) -> None:
    assert "missing: name" in run(state="restored")["msg"]
