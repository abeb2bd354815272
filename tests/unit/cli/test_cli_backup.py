"""`outrider backup`: what it prints, its JSON, its exit codes, and the next command in every refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from outrider.cli.main import main
from unit.migration.backup.scene import Scene

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """As in a checkout: the shim's configuration lies beside its runtime folder."""
    made = Scene(tmp_path)
    made.fill()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "outriderd.toml").write_text(
        f"fleet = 'lab'\nhost = 'h'\nruntime_dir = '{made.config.runtime_dir}'\n"
        f"state_dir = '{made.config.state_dir}'\nlog_dir = '{made.config.log_dir}'\n[consul]\nport = 1\n"
    )
    return made


@pytest.fixture
def run(scene: Scene, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        code = main(["--runtime", str(scene.config.runtime_dir), "backup", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_create_list_verify_and_prune(run: Run, scene: Scene) -> None:
    code, out, err = run("create", "A", "--level", "state")
    assert (code, out.split(":")[0]) == (0, "A-1")
    assert "new, proved by a restore" in out
    assert "other hosts do not know" in err
    assert "unchanged" in run("create", "--level", "state", "--prune")[1]
    code, out, _ = run("list")
    assert code == 0
    assert scene.vault.names()[0] in out
    code, out, _ = run("verify")
    assert (code, "1 SQLite databases" in out) == (0, True)
    assert run("prune")[1] == "0 backups removed\n"


def test_json_of_all(run: Run, scene: Scene) -> None:
    created = json.loads(run("create", "A", "--level", "state", "--json", "--prune")[1])
    assert created["outcome"]["done"][0]["did"] == "new"
    assert created["pruned"] == {"removed": [], "objects": 0}
    listed = json.loads(run("list", "--json")[1])
    assert [row["level"] for row in listed["backups"]] == ["state"]
    assert json.loads(run("verify", "A-1", "--json")[1])["failed"] == []
    assert json.loads(run("restore", "A", "--json")[1])["changed"] is False
    assert json.loads(run("prune", "--json")[1]) == {"removed": [], "objects": 0}


def test_a_damaged_one_is_named_by_each_verb(run: Run, scene: Scene) -> None:
    run("create", "--level", "state")
    scene.object_of(b"one").write_bytes(b"two")
    code, _, err = run("verify")
    assert code == 1
    assert f"backup {scene.vault.names()[0]}: notes: its content" in err
    assert "outrider backup create" in err
    code, out, _ = run("list")
    assert (code, "does not count" in out) == (1, True)
    code, _, err = run("restore", "A-1")
    assert (code, "`outrider backup list`" in err) == (1, True)


def test_restore_shows_first_and_does_it_when_told(run: Run, scene: Scene) -> None:
    run("create", "--level", "state")
    (scene.state / "notes").write_text("spoilt")
    code, out, _ = run("restore", "A-1")
    assert (code, (scene.state / "notes").read_text()) == (0, "spoilt")
    assert "nothing was written, --apply does it" in out
    code, out, _ = run("restore", "A-1", "--apply")
    assert (code, (scene.state / "notes").read_text()) == (0, "one")
    assert ".before-" in out
    code, _, _ = run("restore", "A-1", "--to", str(scene.folder / "to"))
    assert (code, (scene.folder / "to" / "notes").read_text()) == (0, "one")
    assert run("restore", "A-1", "--to", "x", "--apply")[0] == 2


def test_without_consul_the_exit_code_is_3(run: Run) -> None:
    code, _, err = run("create", "A", "--level", "configuration")
    assert (code, "does not answer" in err) == (3, True)
    code, out, _ = run("create")
    assert (code, "A-1: state: new" in out) == (3, True)
    assert run("list", "--fleet")[0] == 3


def test_check_writes_nothing(run: Run, scene: Scene) -> None:
    assert "would be new" in run("create", "--level", "state", "--check")[1]
    assert not scene.vault.root.exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("create", "B"), "instances here: A-1"),
        (("restore", "B"), "`outrider backup list`"),
        (("verify", "B"), "`outrider backup list`"),
    ],
)
def test_an_unknown_name_is_refused_with_what_helps(run: Run, words: tuple[str, ...], hint: str) -> None:
    code, _, err = run(*words)
    assert (code, hint in err) == (1, True)


def test_a_host_without_a_shim_is_told_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runtime", str(tmp_path / "nowhere"), "backup", "list"]) == 1
    assert "--runtime" in capsys.readouterr().err


def test_an_unknown_level_is_wrong_usage(run: Run) -> None:
    assert run("create", "--level", "all")[0] == 2
