"""Two words of memory: who reads them finds a lease or none, never half of two."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from outrider.discovery import lease_file
from outrider.discovery.lease_file import FOREVER_NS, LeaseReader, LeaseWriter
from outrider.errors import HostError


def in_s(seconds: float) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


def test_a_lease_holds_until_its_deadline_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = LeaseWriter(tmp_path / "A-1"), LeaseReader(tmp_path / "A-1")
    assert (reader.epoch(), writer.is_granted) == (0, False)
    deadline = in_s(60)
    writer.grant(7, deadline)
    assert (reader.epoch(), reader.accepts(), writer.is_granted) == (7, 7, True)
    monkeypatch.setattr(lease_file.time, "monotonic_ns", lambda: deadline)
    assert (reader.epoch(), reader.last_epoch, writer.is_granted) == (0, 7, False)


def test_one_that_closes_keeps_its_lease_and_the_next_epoch_opens_it_again(tmp_path: Path) -> None:
    writer, reader = LeaseWriter(tmp_path / "A-1"), LeaseReader(tmp_path / "A-1")
    writer.grant(7, FOREVER_NS)
    writer.close_to_new()
    writer.grant(7, FOREVER_NS)
    assert (reader.epoch(), reader.accepts()) == (7, 0)
    writer.grant(8, FOREVER_NS)
    assert reader.accepts() == 8
    writer.end()
    assert reader.epoch() == 0


def test_the_next_shim_finds_what_the_last_one_granted(tmp_path: Path) -> None:
    LeaseWriter(tmp_path / "A-1").grant(7, in_s(60))
    reader = LeaseReader(tmp_path / "A-1")
    after = LeaseWriter(tmp_path / "A-1")
    assert (after.epoch, after.is_granted) == (7, True)
    after.end()
    assert reader.epoch() == 0  # the same memory, not a new file


def test_a_lease_of_an_earlier_boot_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LeaseWriter(tmp_path / "A-1").grant(7, FOREVER_NS)
    monkeypatch.setattr(lease_file, "boot_hash", lambda: 1)
    assert not LeaseWriter(tmp_path / "A-1").is_granted


@pytest.mark.parametrize("content", [None, b"", b"x" * 64, b"ORLEASE\0"])
def test_what_is_no_lease_is_refused_to_readers_and_replaced_by_writers(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "A-1"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HostError, match="is no lease"):
        LeaseReader(path)
    LeaseWriter(path).grant(7, in_s(60))
    assert LeaseReader(path).epoch() == 7


def test_only_its_writer_may_change_it(tmp_path: Path) -> None:
    LeaseWriter(tmp_path / "leases" / "A-1")
    assert os.stat(tmp_path / "leases" / "A-1").st_mode & 0o777 == 0o644


class Steps:
    """The writer's words; `seen` is what a reader finds after each single store."""

    def __init__(self, words: memoryview, reader: LeaseReader) -> None:
        self.words, self.reader = words, reader
        self.seen: list[int] = []

    def __getitem__(self, at: int) -> int:
        return self.words[at]

    def __setitem__(self, at: int, value: int) -> None:
        self.words[at] = value
        self.seen.append(self.reader.epoch())


def test_a_reader_never_finds_an_epoch_with_the_deadline_of_another(tmp_path: Path) -> None:
    writer, reader = LeaseWriter(tmp_path / "A-1"), LeaseReader(tmp_path / "A-1")
    steps = Steps(writer._words, reader)
    writer._words = steps  # type: ignore[assignment]
    writer.grant(7, FOREVER_NS)
    writer.grant(8, 1)  # over before it began: nobody may take it for one that lasts as the lease before
    writer.grant(9, FOREVER_NS)
    assert 8 not in steps.seen
    assert {7, 9} <= set(steps.seen)
    writer._words = steps.words
