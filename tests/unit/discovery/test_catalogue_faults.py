"""The catalogue when its writer dies at any line, its host reboots, its files go, or its bytes are wrong."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from outrider.discovery import api
from outrider.discovery import catalogue as writing
from outrider.discovery import format as fmt
from outrider.discovery import reader as reading
from outrider.discovery.catalogue import Catalogue, CatalogueWriter
from outrider.discovery.records import Entry, Instance
from outrider.errors import CatalogueError, UnknownAgent


def entries(port: int, count: int = 3) -> dict[str, Entry]:
    return {f"A{n}": Entry(f"A{n}", (Instance(f"A{n}", f"A{n}-1", "h", "127.0.0.1", port, {}),)) for n in range(count)}


def port_of(reader: Catalogue) -> int:
    return reader.lookup("A1").instances[0].port


def in_child(work: Callable[[], None]) -> int:
    """Fork, work, and return the child's wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def killed_at(line: int) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that kills its process before the given line, counted over those of catalogue.py."""
    left = [line]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != writing.__file__:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def test_a_writer_killed_before_any_line_leaves_old_or_new_and_the_next_goes_on(tmp_path: Path) -> None:
    outcomes = set()
    for line in range(200):
        folder = tmp_path / str(line)
        folder.mkdir()
        first = CatalogueWriter(folder)
        first.publish(entries(1))
        first.close()
        reader = Catalogue(folder)

        def publish(folder: Path = folder, line: int = line) -> None:
            sys.settrace(killed_at(line))
            CatalogueWriter(folder).publish(entries(2))

        status = in_child(publish)
        # A reader that opens only now maps whatever the dead writer left, also a snapshot that was not announced.
        late = Catalogue(folder)
        before = late.lookup("A1")
        outcomes |= {port_of(reader), port_of(late)}
        second = CatalogueWriter(folder)
        second.publish(entries(3))
        second.close()
        assert port_of(reader) == port_of(late) == 3, f"killed before line {line}"
        assert late.lookup("A1").generation > before.generation
        if status == 0:
            break
    else:
        pytest.fail("the publication never came to its end")
    assert line > 15
    assert outcomes == {1, 2}


def test_a_word_of_the_head_is_never_seen_half_written(tmp_path: Path) -> None:
    writer = CatalogueWriter(tmp_path)
    writer.publish(entries(1))
    end = time.monotonic() + 0.5

    def confirm() -> None:
        while time.monotonic() < end:
            for _ in range(1000):
                writer.confirm()

    pid = os.fork()
    if pid == 0:
        try:
            confirm()
        finally:
            os._exit(0)
    reader = Catalogue(tmp_path)
    oldest = 0.0
    while time.monotonic() < end - 0.1:
        oldest = max(oldest, reader.age_s)
    os.waitpid(pid, 0)
    writer.close()
    # Half a word reads as the epoch of the clock: an age of the host's whole uptime.
    assert oldest < 0.5


def test_publishing_confirms_nothing(tmp_path: Path) -> None:
    writer = CatalogueWriter(tmp_path)
    writer.publish(entries(1))
    reader = Catalogue(tmp_path)
    time.sleep(0.02)
    writer.publish(entries(2))
    assert port_of(reader) == 2
    assert reader.age_s >= 0.02
    aged = reader.age_s
    writer.confirm()
    assert reader.age_s < aged
    writer.close()


def reboot(folder: Path, *, seconds_ago: float) -> None:
    """Make the head one that an earlier boot of this host confirmed."""
    head = bytearray((folder / "catalogue.head").read_bytes())
    wall_ns = time.time_ns() - int(seconds_ago * 1e9)
    struct.pack_into("=QQQ", head, fmt.AT_CONFIRMED * 8, time.monotonic_ns() + 10**15, wall_ns, fmt.boot_hash() ^ 1)
    (folder / "catalogue.head").write_bytes(head)


def test_after_a_reboot_the_wall_clock_tells_the_age_until_it_is_confirmed(tmp_path: Path) -> None:
    writer = CatalogueWriter(tmp_path)
    writer.publish(entries(1))
    writer.close()
    reboot(tmp_path, seconds_ago=90)
    reader = Catalogue(tmp_path)
    assert 89 < reader.lookup("A1").age_s < 120
    again = CatalogueWriter(tmp_path)
    assert 89 < reader.lookup("A1").age_s < 120
    again.confirm()
    assert reader.lookup("A1").age_s < 5
    again.close()


def test_the_boot_is_not_asked_for_at_every_lookup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = CatalogueWriter(tmp_path)
    writer.publish(entries(1))
    reboot(tmp_path, seconds_ago=1)
    reader = Catalogue(tmp_path)
    reader.lookup("A1")
    monkeypatch.setattr(Path, "read_text", lambda *_a, **_k: pytest.fail("a lookup read a file"))
    reader.lookup("A1")
    writer.close()


def test_a_catalogue_that_is_gone_goes_on_answering_and_the_next_is_taken_when_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "STALE_NS", -1)
    monkeypatch.setattr(reading, "LOOK_NS", 0)
    writer = CatalogueWriter(tmp_path)
    writer.publish(entries(1))
    reader = Catalogue(tmp_path)
    writer.close()
    for name in ("catalogue.head", "catalogue.snap"):
        (tmp_path / name).unlink()
    assert port_of(reader) == 1
    fresh = CatalogueWriter(tmp_path)
    assert port_of(reader) == 1
    fresh.publish(entries(7))
    assert port_of(reader) == 7
    fresh.close()


def test_a_new_format_under_a_running_reader_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "STALE_NS", -1)
    writer = CatalogueWriter(tmp_path)
    writer.publish(entries(1))
    reader = Catalogue(tmp_path)
    writer.close()
    head = bytearray((tmp_path / "catalogue.head").read_bytes())
    struct.pack_into("=I", head, 8, 9)
    (tmp_path / "new").write_bytes(head)
    (tmp_path / "new").replace(tmp_path / "catalogue.head")
    with pytest.raises(CatalogueError, match=r"catalogue\.head has format 9, this library reads format 1"):
        reader.lookup("A1")


def test_no_wrong_byte_of_index_or_records_gives_a_wrong_answer(tmp_path: Path) -> None:
    writer = CatalogueWriter(tmp_path)
    writer.publish(entries(1))
    writer.close()
    path = tmp_path / "catalogue.snap"
    sound = path.read_bytes()
    for at in range(fmt.SNAP.size, len(sound)):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x55]) + sound[at + 1 :])
        for name in entries(1):
            try:
                answer = Catalogue(tmp_path).lookup(name)
            except CatalogueError as error:
                assert str(path) in error.message  # noqa: PT017
            else:
                assert answer.instances == entries(1)[name].instances, f"byte {at}"
        with pytest.raises(CatalogueError, match="is damaged"):
            Catalogue(tmp_path).entries()


def test_a_retired_host_says_so_until_a_shim_takes_it_back(tmp_path: Path) -> None:
    writer = CatalogueWriter(tmp_path)
    writer.publish(entries(1))
    reader = Catalogue(tmp_path)
    assert not reader.retired
    writer.retire()
    assert reader.retired
    assert port_of(reader) == 1
    writer.close()
    CatalogueWriter(tmp_path).close()
    assert not reader.retired


def test_a_watch_wakes_within_milliseconds_and_only_for_its_agent(tmp_path: Path) -> None:
    writer = CatalogueWriter(tmp_path)
    writer.publish(entries(1))
    seen = api.watch("A1", timeout_s=0.5, runtime=str(tmp_path))
    next(seen)
    published, woken = mmap.mmap(-1, 8), []
    for port in range(2, 22):
        pid = os.fork()
        if pid == 0:
            time.sleep(0.005)
            writer.publish({**entries(port), "A0": entries(port + 1)["A0"]})
            memoryview(published).cast("Q")[0] = time.monotonic_ns()
            os._exit(0)
        assert next(seen).instances[0].port == port
        now = time.monotonic_ns()
        os.waitpid(pid, 0)
        woken.append((now - memoryview(published).cast("Q")[0]) / 1e6)
    assert sorted(woken)[10] < 20
    writer.publish({**entries(21), "A0": entries(99)["A0"]})
    assert list(seen) == []
    writer.close()


def test_an_unknown_name_stays_unknown_after_a_publication(tmp_path: Path) -> None:
    writer = CatalogueWriter(tmp_path)
    writer.publish(entries(1))
    reader = Catalogue(tmp_path)
    with pytest.raises(UnknownAgent):
        reader.lookup("A9")
    writer.publish(entries(1, count=10))
    assert reader.lookup("A9").instances
    writer.close()


def test_a_watch_follows_a_head_that_was_replaced_and_sleeps_through_other_files(tmp_path: Path) -> None:
    first = CatalogueWriter(tmp_path)
    first.publish(entries(1))
    seen = api.watch("A1", timeout_s=0.5, runtime=str(tmp_path))
    next(seen)
    (tmp_path / "other").touch()
    os.utime(tmp_path / "other")
    first.close()
    for name in ("catalogue.head", "catalogue.snap"):
        (tmp_path / name).unlink()
    second = CatalogueWriter(tmp_path)
    second.publish(entries(2))
    second.close()
    assert next(seen).instances[0].port == 2
