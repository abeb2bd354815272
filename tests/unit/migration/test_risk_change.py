"""What differs between two folders of code is counted in lines and files, as a packed release would see it."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from outrider.fleet.spec import Agent, Resources
from outrider.migration.risk import change
from outrider.migration.risk.change import Change, compare, configured
from outrider.registry.layout import AgentDoc


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("old", "new"):
        (tmp_path / name / "app").mkdir(parents=True)
        (tmp_path / name / "app/main.py").write_text("one\ntwo\nthree\n")
    return tmp_path / "old", tmp_path / "new"


def test_the_same_code_is_no_change(folders: tuple[Path, Path]) -> None:
    old, new = folders
    (new / "__pycache__").mkdir()
    (new / "__pycache__/main.pyc").write_bytes(b"\0other")
    (new / ".git").mkdir()
    (new / ".git/HEAD").write_text("ref")
    assert compare(old, new) == Change(0, 0)


def test_what_the_fleet_file_says_otherwise_counts_as_lines_of_one_file() -> None:
    old = AgentDoc("A", "f", Agent(module="a", resources=Resources(cpu=1)), "v1")
    assert configured(old, replace(old, version="v2", release="other")) == Change(0, 0)
    agent = replace(old.agent, resources=Resources(cpu=2), environment={"NEW": "1"})
    assert configured(old, replace(old, agent=agent)) == Change(2 + 3, 1)


def test_lines_added_and_removed_count_and_moved_ones_do_not(folders: tuple[Path, Path]) -> None:
    old, new = folders
    (new / "app/main.py").write_text("two\none\nTHREE\nfour\n")
    (new / "config.toml").write_text("a = 1\nb = 2\n")
    (old / "gone.py").write_text("x\n")
    assert compare(old, new) == Change(3 + 2 + 1, 3)


def test_an_empty_file_that_appears_is_a_changed_file(folders: tuple[Path, Path]) -> None:
    old, new = folders
    (new / "app/__init__.py").write_text("")
    assert compare(old, new) == Change(0, 1)


def test_a_model_or_a_library_has_no_lines_and_is_named(folders: tuple[Path, Path]) -> None:
    old, new = folders
    (old / "model.onnx").write_bytes(b"\0one")
    (new / "model.onnx").write_bytes(b"\0two")
    assert compare(old, new) == Change(0, 1, ("model.onnx",))


def test_a_link_is_compared_by_where_it_leads(folders: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = folders
    (tmp_path / "secret").write_text("a\nb\nc\n")
    (old / "link").symlink_to("app/main.py")
    (new / "link").symlink_to(tmp_path / "secret")
    assert compare(old, new) == Change(2, 1)


def test_far_too_much_or_nothing_is_refused(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = folders
    with pytest.raises(FileNotFoundError):
        compare(old, new / "missing")
    monkeypatch.setattr(change, "MOST_FILES", 0)
    with pytest.raises(ValueError, match="more than 0 files"):
        compare(old, new)
