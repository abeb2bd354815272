"""A folder comes back as it was, whatever is in it; and one that changes while it is copied is noticed."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.errors import BackupError
from outrider.migration.backup import tree
from outrider.migration.backup.model import on_disk, written
from outrider.migration.backup.objects import PIECE, digest_of
from outrider.migration.backup.tree import copied, put_back

NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: b"/" not in name and b"\0" not in name and name not in
                                                  (b".", b".."))  # fmt: skip
MODES = st.sampled_from([0o600, 0o640, 0o755, 0o444])
FILES = st.tuples(st.just("file"), st.binary(max_size=200), MODES)
LINKS = st.tuples(st.just("link"), st.binary(min_size=1, max_size=30).filter(lambda to: b"\0" not in to), st.just(0))
TREES = st.recursive(
    FILES | LINKS, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
).filter(lambda made: isinstance(made, dict))  # fmt: skip


class Memory(dict[str, bytes]):
    """Objects that a test keeps. `seen`: called with each piece."""

    def put(self, piece: bytes) -> str:
        digest = digest_of(piece)
        self[digest] = piece
        self.seen(piece)
        return digest

    def seen(self, piece: bytes) -> None:
        """For a test to act in the middle of a copy."""

    def read(self, digest: str, of: str) -> bytes:
        return self[digest]


def build(folder: bytes, made: dict[bytes, object]) -> None:
    for name, inner in made.items():
        path = os.path.join(folder, name)
        if isinstance(inner, dict):
            os.mkdir(path)
            build(path, inner)
        elif inner[0] == "link":  # type: ignore[index]
            os.symlink(inner[1], path)  # type: ignore[index]
        else:
            with open(path, "xb") as file:
                file.write(inner[1])  # type: ignore[index]
            os.chmod(path, inner[2])  # type: ignore[index]


def shape(folder: bytes) -> dict[bytes, tuple[object, ...]]:
    """All that a restore must bring back, asked of the file system."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files, b"."):
            path = os.path.join(root, name)
            look = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(look.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(look.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            mode = look.st_mode if not stat.S_ISLNK(look.st_mode) else 0
            found[os.path.relpath(path, folder)] = (mode, content, look.st_mtime_ns, look.st_uid, look.st_gid)
    return found


@settings(max_examples=40, deadline=None)
@given(TREES)
def test_what_was_copied_comes_back(made: dict[bytes, object]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source, target, memory = Path(scratch, "source"), Path(scratch, "target"), Memory()
        for folder in (source, target):
            folder.mkdir()
        build(os.fsencode(source), made)
        entries, left_out = copied(source, memory, passes=12)
        put_back(entries, target, memory.read)
        assert left_out == ()
        assert shape(os.fsencode(target)) == shape(os.fsencode(source))


@given(st.binary(min_size=1, max_size=40))
def test_any_name_survives_the_manifest(name: bytes) -> None:
    assert os.fsencode(on_disk(written(name))) == name
    assert written(name).isascii()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a").write_text("one")
    (folder / "b").write_text("one")
    return folder


def test_zeros_are_kept_as_holes(source: Path, tmp_path: Path) -> None:
    with open(source / "hole", "wb") as file:
        file.truncate(50 * PIECE)
        file.seek(20 * PIECE)
        file.write(b"here")
    memory = Memory()
    entries, _ = copied(source, memory)
    assert sum(map(len, (piece for digest, piece in memory.items() if digest))) == PIECE + 3
    (tmp_path / "to").mkdir()
    put_back(entries, tmp_path / "to", memory.read)
    restored = tmp_path / "to" / "hole"
    assert restored.stat().st_size == 50 * PIECE
    assert restored.stat().st_blocks * 512 < 3 * PIECE
    with open(restored, "rb") as file:
        file.seek(20 * PIECE)
        assert file.read(4) == b"here"


def test_what_cannot_be_kept_is_named(source: Path) -> None:
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(source)
        listener.bind("sock")
        entries, left_out = copied(source, Memory())
    assert left_out == ("pipe", "sock")
    assert [entry.path for entry in entries] == [".", "a", "b"]


def test_no_link_is_followed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not ours")
    (source / "out").symlink_to(tmp_path)
    memory = Memory()
    entries, _ = copied(source, memory)
    assert b"not ours" not in memory.values()
    assert [entry.target for entry in entries if entry.path == "out"] == [str(tmp_path)]


class Busy(Memory):
    """Something happens in the middle of the first `times` pieces that are copied."""

    def __init__(self, times: int, act: object) -> None:
        self.times, self.act = times, act

    def seen(self, piece: bytes) -> None:
        if self.times > 0:
            self.times -= 1
            self.act()  # type: ignore[operator]


@pytest.mark.parametrize("times", [1, 2])
def test_a_file_that_changes_while_it_is_copied_is_copied_again(source: Path, tmp_path: Path, times: int) -> None:
    count = iter(range(100))
    memory = Busy(times, lambda: (source / "a").write_text(f"two {next(count)}"))
    entries, _ = copied(source, memory)
    (tmp_path / "to").mkdir()
    put_back(entries, tmp_path / "to", memory.read)
    assert (tmp_path / "to" / "a").read_text() == f"two {times - 1}"


def test_a_change_within_one_tick_of_the_clock_is_seen(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system's clock stands still for milliseconds, and its times say nothing then."""
    monkeypatch.setattr(tree, "_signature", lambda seen: (seen.st_ino, seen.st_mode, seen.st_size))
    memory = Busy(1, lambda: (source / "a").write_text("two"))
    changed_ns = (source / "a").stat().st_ctime_ns
    clock = iter([changed_ns + 1_000_000] * 3)  # one look at each thing, and later ones when all is quiet
    entries, _ = copied(source, memory, now_ns=lambda: next(clock, changed_ns + 10**12))
    (tmp_path / "to").mkdir()
    put_back(entries, tmp_path / "to", memory.read)
    assert (tmp_path / "to" / "a").read_text() == "two"


def test_all_files_are_of_one_instant(source: Path, tmp_path: Path) -> None:
    """The new `z` with the old `a` never was on the disk: both were written while `m`, between them, was copied."""
    for name in "amz":
        (source / name).write_text(name)

    def act() -> None:
        (source / "a").write_text("new")
        (source / "z").write_text("new")

    class When(Memory):
        def seen(self, piece: bytes) -> None:
            if piece == b"m":
                act()

    memory = When()
    entries, _ = copied(source, memory, now_ns=lambda: 1 << 62)
    (tmp_path / "to").mkdir()
    put_back(entries, tmp_path / "to", memory.read)
    assert [(tmp_path / "to" / name).read_text() for name in "amz"] == ["new", "m", "new"]


def test_a_file_that_goes_and_one_that_comes_are_noticed(source: Path) -> None:
    def swap() -> None:
        (source / "b").unlink()
        (source / "c").write_text("new")

    entries, _ = copied(source, Busy(1, swap))
    assert [entry.path for entry in entries] == [".", "a", "c"]


def test_one_that_never_rests_is_refused_by_name(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "TICK_NS", 1000)
    count = iter(range(1000))
    busy = Busy(1000, lambda: (source / "a").write_text(f"{next(count)}"))
    with pytest.raises(BackupError, match=r"changed each of 4 times that it was copied: a") as refusal:
        copied(source, busy, passes=4)
    assert "outrider stop" in refusal.value.hint


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"gone: No such file"):
        copied(tmp_path / "gone", Memory())
