from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from outrider.calls.state_folder import OURS
from outrider.calls.state_swap import new_folder, old_folder, recover, swap
from outrider.errors import HostError

OLD = {"both": "old", "only old": "old", "folder/x": "old", "kind": "old"}
NEW = {"both": "new", "only new": "new", "folder/y": "new", "kind/is a folder": "new"}


class Killed(BaseException):
    """The process is gone: nothing after it is done."""


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(state: Path) -> dict[str, str]:
    files = [path for path in state.rglob("*") if path.is_file() and OURS not in path.parts]
    return {str(path.relative_to(state)): path.read_text() for path in files}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    put(tmp_path / "state", OLD)
    put(new_folder(tmp_path / "state"), NEW)
    return tmp_path / "state"


def dying_after(steps: int, what: BaseException) -> Callable[..., None]:
    """A rename that works so many times, and then is the last thing that happens."""
    done = iter(range(steps))

    def rename(source: Path, target: Path) -> None:
        if next(done, None) is None:
            raise what
        os.rename(source, target)

    return rename


def test_a_swap_replaces_everything(state: Path) -> None:
    swap(state)
    assert content(state) == NEW
    assert not recover(state)
    assert content(state) == NEW


@pytest.mark.parametrize("renames", range(9))
def test_whoever_dies_in_a_swap_finds_the_new_state(state: Path, renames: int) -> None:
    """Once the journal is there it is finished, also when that is cut off in its turn."""
    total = 8  # four out, four in
    try:
        swap(state, dying_after(renames, Killed()))
    except Killed:
        assert renames < total
    else:
        assert renames == total
    assert recover(state) == (renames < total)
    assert content(state) == NEW
    assert not old_folder(state).exists() or renames == total


@pytest.mark.parametrize("file_op", range(1, 40))
def test_whoever_dies_anywhere_finds_one_state_or_the_other(
    state: Path, file_op: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call to the file system that a swap makes may be its last."""
    left = iter(range(file_op))

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*args: object, **options: object) -> object:
            if next(left, None) is None:
                raise Killed
            return call(*args, **options)

        return wrapper

    with monkeypatch.context() as patched:
        for name in ("rename", "replace", "unlink", "mkdir", "fsync", "listdir", "rmdir"):
            patched.setattr(os, name, counted(getattr(os, name)))
        patched.setattr(shutil, "rmtree", counted(shutil.rmtree))
        with contextlib.suppress(Killed):
            swap(state, os.rename)
    began = recover(state)
    assert content(state) in ((NEW,) if began else (OLD, NEW))


@pytest.mark.parametrize("renames", range(8))
def test_a_swap_that_fails_puts_the_old_state_back(state: Path, renames: int) -> None:
    calls = iter(range(100))

    def rename(source: Path, target: Path) -> None:
        if next(calls) == renames:
            raise OSError(16, "it is busy")
        os.rename(source, target)

    with pytest.raises(OSError, match="busy"):
        swap(state, rename)
    assert content(state) == OLD
    assert not recover(state)
    swap(state)
    assert content(state) == NEW


def test_a_journal_that_cannot_be_read_stops_the_start(state: Path) -> None:
    (state / OURS / "journal").write_text("{")
    with pytest.raises(HostError, match="journal"):
        recover(state)
