from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from outrider.calls import state_scan
from outrider.calls.state_folder import CHUNK, OURS, digest, hash_of
from outrider.calls.state_scan import Scanner, read_chunk
from outrider.errors import CallRefused


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    (folder / "a").mkdir(parents=True, mode=0o750)
    (folder / "a" / "f").write_bytes(b"x" * (CHUNK + 1))
    (folder / "empty").touch()
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    (folder / OURS).mkdir()
    (folder / OURS / "journal").write_text("ours")
    return folder


class Counting:
    """How many files are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = 0
        hashes = state_scan._hashes

        def counted(fd: int) -> tuple[int, tuple[bytes, ...]]:
            self.read += 1
            return hashes(fd)

        monkeypatch.setattr(state_scan, "_hashes", counted)


def test_files_folders_and_links_are_found_and_nothing_else(state: Path) -> None:
    found = {item.path: item for item in Scanner(state).scan()}
    assert list(found) == ["a", "a/f", "empty", "link"]
    assert (found["a"].kind, found["a"].mode) == ("folder", 0o750)
    assert found["a/f"].hashes == (hash_of(b"x" * CHUNK), hash_of(b"x"))
    assert (found["empty"].size, found["empty"].hashes) == (0, ())
    assert (found["link"].kind, found["link"].target) == ("link", "/etc/passwd")


def test_of_a_file_that_was_amended_only_the_chunks_named_are_read(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanner = Scanner(state, private=True)
    scanner.scan(settle=True)
    counting = Counting(monkeypatch)
    with (state / "a" / "f").open("r+b") as file:
        file.seek(CHUNK)
        file.write(b"y" * CHUNK + b"z")
    scanner.amend("a/f", (1, 2))
    found = {item.path: item for item in scanner.scan(settle=True)}
    assert found["a/f"].hashes == (hash_of(b"x" * CHUNK), hash_of(b"y" * CHUNK), hash_of(b"z"))
    assert counting.read == 0


def test_a_file_that_became_another_one_is_read_whole(state: Path) -> None:
    scanner = Scanner(state, private=True)
    scanner.scan(settle=True)
    (state / "new").write_bytes(b"y" * (CHUNK + 1))
    (state / "new").replace(state / "a" / "f")
    scanner.amend("a/f", ())
    assert {item.path: item for item in scanner.scan()}["a/f"].hashes == (hash_of(b"y" * CHUNK), hash_of(b"y"))


def test_what_has_not_changed_is_not_read_again(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_scan, "TICK_NS", 0)
    counting, scanner = Counting(monkeypatch), Scanner(state)
    first = scanner.scan(settle=True)
    assert scanner.scan() == first
    assert counting.read == 2
    with (state / "a" / "f").open("r+b") as file:
        file.write(b"y")
    assert scanner.scan() != first
    assert counting.read == 3


def test_what_was_written_a_moment_ago_is_read_again(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second write within the same tick of the clock would not change its times."""
    monkeypatch.setattr(state_scan, "TICK_NS", 3600 * 10**9)
    counting, scanner = Counting(monkeypatch), Scanner(state)
    scanner.scan(settle=True)
    scanner.scan(settle=True)
    assert counting.read == 4


def test_what_is_written_through_shared_memory_is_read_again(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_scan, "TICK_NS", 0)
    monkeypatch.setattr(state_scan, "_key", lambda _: (0, 0))  # as where such a write does not change the times
    scanner = Scanner(state)
    with (state / "a" / "f").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = 1
        first = digest(scanner.scan(settle=True))
        memory[1] = 1
        assert digest(scanner.scan()) != first


def test_the_stamp_tells_every_change(state: Path) -> None:
    scanner = Scanner(state)
    before = scanner.stamp()
    assert scanner.stamp() == before
    (state / "a" / "g").touch()
    assert scanner.stamp() != before


def test_a_name_that_cannot_be_sent_is_named(state: Path) -> None:
    Path(os.fsdecode(os.fsencode(state) + b"/\xff")).touch()
    with pytest.raises(CallRefused, match="UTF-8"):
        Scanner(state).scan()


def test_chunks_are_read(state: Path) -> None:
    assert read_chunk(state, "a/f", 0) == b"x" * CHUNK
    assert read_chunk(state, "a/f", 1) == b"x"
    assert read_chunk(state, "a/f", 2) == b""


@pytest.mark.parametrize("path", ["", ".", "..", "../x", "a/../f", "/etc/passwd", "a//f", f"{OURS}/journal", "pipe"])
def test_no_chunk_of_anything_else_is_read(state: Path, path: str) -> None:
    with pytest.raises(CallRefused):
        read_chunk(state, path, 0)


@pytest.mark.parametrize("path", ["link", "out/passwd"])
def test_no_link_is_followed(state: Path, path: str) -> None:
    (state / "out").symlink_to("/etc")
    with pytest.raises(OSError, match=path.split("/")[0]):
        read_chunk(state, path, 0)
