"""The catalogue: what is published is read whole, what is damaged is named, a failed write changes nothing."""

from __future__ import annotations

import multiprocessing
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from full_disk import full_disk
from outrider.discovery import api
from outrider.discovery.catalogue import Catalogue, CatalogueWriter
from outrider.discovery.records import Entry, Instance
from outrider.errors import CatalogueError, UnknownAgent

SPAWN = multiprocessing.get_context("spawn")


def entry(name: str, count: int = 1, port: int = 1) -> Entry:
    return Entry(
        name, tuple(Instance(name, f"{name}-{n}", "h", "127.0.0.1", port, {"main": port}) for n in range(count))
    )


def entries(count: int, port: int = 1) -> dict[str, Entry]:
    return {f"A{n}": entry(f"A{n}", port=port) for n in range(count)}


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[CatalogueWriter]:
    made = CatalogueWriter(tmp_path)
    yield made
    made.close()


def test_what_is_published_is_read(writer: CatalogueWriter, tmp_path: Path) -> None:
    assert writer.publish(entries(77)) == 1
    reader = Catalogue(tmp_path)
    answer = reader.lookup("A5")
    assert [i.instance for i in answer.instances] == ["A5-0"]
    assert answer.source == "catalogue"
    assert 0 <= answer.age_s < 5
    assert len(reader.names()) == 77
    assert writer.publish({"A5": entry("A5", 2)}) == 2
    assert len(reader.lookup("A5").instances) == 2


def test_lost_hosts_are_read_where_the_catalogue_was_and_nowhere_else(writer: CatalogueWriter, tmp_path: Path) -> None:
    assert api.lost_hosts("A", str(tmp_path)) == ()
    writer.publish({"A": Entry("A", lost=("h", "i")), "B": entry("B")})
    assert api.lost_hosts("A", str(tmp_path)) == ()  # nobody has looked anything up: no call is under way
    assert api.lookup("A", runtime=str(tmp_path)).lost == ("h", "i")
    assert [api.lost_hosts(name, str(tmp_path)) for name in ("A", "B", "C")] == [("h", "i"), (), ()]
    writer.publish({"A": Entry("A", lost=("i",))})
    assert api.lost_hosts("A", str(tmp_path)) == ("i",)


def test_a_catalogue_of_a_release_without_lost_hosts_is_read_and_the_other_way_round() -> None:
    old = msgspec.msgpack.encode(["A", [], True])
    assert msgspec.msgpack.decode(old, type=Entry) == Entry("A", held=True)
    new = msgspec.msgpack.encode(Entry("A", held=True, lost=("h",)))
    assert msgspec.msgpack.decode(new, type=Before) == Before("A", held=True)


class Before(msgspec.Struct, frozen=True, array_like=True):
    """Entry as it was first published."""

    agent: str
    instances: tuple[Instance, ...] = ()
    held: bool = False


def test_the_same_content_is_no_new_generation(writer: CatalogueWriter) -> None:
    assert writer.publish(entries(3)) == writer.publish(entries(3)) == 1


def test_an_unknown_name_is_refused_with_the_nearest(writer: CatalogueWriter, tmp_path: Path) -> None:
    writer.publish({"MemoryClient": entry("MemoryClient"), "Idle": Entry("Idle")})
    with pytest.raises(UnknownAgent, match="did you mean MemoryClient"):
        Catalogue(tmp_path).lookup("MemoryCleint")
    assert Catalogue(tmp_path).lookup("Idle").instances == ()


def test_a_new_writer_goes_on_where_the_last_stopped(tmp_path: Path) -> None:
    first = CatalogueWriter(tmp_path)
    first.publish(entries(3))
    reader = Catalogue(tmp_path)
    with pytest.raises(CatalogueError, match="another shim publishes"):
        CatalogueWriter(tmp_path)
    first.close()
    second = CatalogueWriter(tmp_path)
    assert second.load_last().keys() == entries(3).keys()
    assert second.publish(entries(4)) == 2
    assert reader.lookup("A3").generation == 2
    second.close()


def test_age_grows_until_it_is_confirmed(
    writer: CatalogueWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.publish(entries(1))
    reader = Catalogue(tmp_path)
    real = reader.age_s
    from outrider.discovery import reader as module

    now = module.time.monotonic_ns
    monkeypatch.setattr(module.time, "monotonic_ns", lambda: now() + 60 * 10**9)
    assert reader.lookup("A0").age_s >= real + 59
    assert reader.age_s >= 59


def test_a_replaced_head_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = CatalogueWriter(tmp_path)
    writer.publish(entries(1))
    reader = Catalogue(tmp_path)
    writer.close()
    for name in ("catalogue.head", "catalogue.snap"):
        (tmp_path / name).unlink()
    fresh = CatalogueWriter(tmp_path)
    fresh.publish(entries(1, port=9))
    from outrider.discovery import reader as module

    monkeypatch.setattr(module, "STALE_NS", -1)
    assert reader.lookup("A0").instances[0].port == 9
    fresh.close()


@pytest.mark.parametrize(
    ("name", "at", "data", "says"),
    [
        ("catalogue.head", 0, b"GARBAGE!", "is not a catalogue"),
        ("catalogue.head", 8, struct.pack("<I", 9), "has format 9, this library reads format 1"),
        ("catalogue.snap", 8, struct.pack("<I", 9), "has format 9"),
        ("catalogue.snap", 40, b"\xff\xff\xff\xff", "is damaged"),
        ("catalogue.snap", -3, b"\xff\xff\xff", "is damaged"),
    ],
)
def test_damage_is_named(writer: CatalogueWriter, tmp_path: Path, name: str, at: int, data: bytes, says: str) -> None:
    writer.publish(entries(3))
    content = bytearray((tmp_path / name).read_bytes())
    at = at if at >= 0 else len(content) + at
    content[at : at + len(data)] = data
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CatalogueError, match=says):
        Catalogue(tmp_path).entries()


def test_a_truncated_or_missing_catalogue_is_named(writer: CatalogueWriter, tmp_path: Path) -> None:
    writer.publish(entries(3))
    (tmp_path / "catalogue.snap").write_bytes((tmp_path / "catalogue.snap").read_bytes()[:50])
    with pytest.raises(CatalogueError, match="is damaged"):
        Catalogue(tmp_path)
    with pytest.raises(CatalogueError, match="no catalogue at"):
        Catalogue(tmp_path / "nowhere")


def _publish_on_a_full_disk(folder: Path, queue: multiprocessing.Queue[str]) -> None:
    writer = CatalogueWriter(folder)
    writer.publish(entries(3))
    try:
        with full_disk(4096):
            writer.publish(entries(5000))
        queue.put("published")
    except CatalogueError as error:
        queue.put(f"{error.message}; generation {writer.generation}")


def test_a_full_disk_keeps_the_last_snapshot(tmp_path: Path) -> None:
    queue: multiprocessing.Queue[str] = SPAWN.Queue()
    child = SPAWN.Process(target=_publish_on_a_full_disk, args=(tmp_path, queue))
    child.start()
    said = queue.get(timeout=30)
    child.join()
    assert "cannot be written" in said
    assert "generation 1" in said
    assert len(Catalogue(tmp_path).names()) == 3


def _read_until_done(folder: Path, done: object, queue: multiprocessing.Queue[str]) -> None:
    reader, last = Catalogue(folder), 0
    while not done.is_set():  # type: ignore[attr-defined]
        answer = reader.lookup("A7")
        # Every instance of one publication carries its number as port: a mixture would be a torn read.
        if answer.generation < last or len({i.port for i in answer.instances}) != 1:
            queue.put(f"torn: {last} then {answer}")
            return
        last = answer.generation
    queue.put("ok")


def test_no_reader_ever_sees_a_torn_or_older_catalogue(writer: CatalogueWriter, tmp_path: Path) -> None:
    writer.publish({"A7": entry("A7", 5)})
    queue: multiprocessing.Queue[str] = SPAWN.Queue()
    done = SPAWN.Event()
    readers = [SPAWN.Process(target=_read_until_done, args=(tmp_path, done, queue)) for _ in range(3)]
    for reader in readers:
        reader.start()
    for port in range(1, 1000):
        writer.publish({"A7": entry("A7", 1 + port % 7, port=port)})
    done.set()
    assert [queue.get(timeout=30) for _ in readers] == ["ok"] * 3
    for reader in readers:
        reader.join()


def test_a_watch_is_woken_by_each_change(writer: CatalogueWriter, tmp_path: Path) -> None:
    writer.publish(entries(2))
    seen = api.watch("A1", timeout_s=10, runtime=str(tmp_path))
    assert next(seen).instances[0].port == 1
    threading.Timer(0.05, lambda: writer.publish(entries(2, port=2))).start()
    assert next(seen).instances[0].port == 2
    writer.publish({"A0": entry("A0", port=3), "A1": entry("A1", port=2)})
    assert next(api.watch("A1", timeout_s=0, runtime=str(tmp_path))).instances[0].port == 2


async def test_the_async_twins_answer_the_same(writer: CatalogueWriter, tmp_path: Path) -> None:
    writer.publish(entries(2))
    assert (await api.alookup("A1", runtime=str(tmp_path))).instances[0].port == 1
    seen = api.awatch("A1", runtime=str(tmp_path))
    assert (await anext(seen)).instances[0].port == 1
    writer.publish(entries(2, port=2))
    assert (await anext(seen)).instances[0].port == 2
    await seen.aclose()


def test_readers_share_one_reader_per_folder(writer: CatalogueWriter, tmp_path: Path) -> None:
    writer.publish(entries(1))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        api.lookup("A0", runtime=str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) <= before + 3
