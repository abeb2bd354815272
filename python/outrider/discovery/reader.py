"""Reading the catalogue: a lookup is a few memory reads, and a decode only after a publication."""

from __future__ import annotations

import difflib
import mmap
import os
import threading
import time
import zlib
from bisect import bisect_left
from pathlib import Path

import msgspec
from msgspec import Struct

from outrider.discovery import format as fmt
from outrider.discovery.records import Answer, Entry
from outrider.errors import CatalogueError, UnknownAgent

STALE_NS = 1_000_000_000  # older than this, a reader looks whether the files were replaced under it

_decode = msgspec.msgpack.Decoder(Entry).decode


class _Snapshot(Struct):
    """A mapped snapshot. `cache`: entries decoded from it so far."""

    generation: int
    data: mmap.mmap
    hashes: memoryview
    slots_at: int
    cache: dict[str, Entry]


class Catalogue:
    """Reads the catalogue of one runtime folder. Thread-safe; one per process is enough.

    Raises CatalogueError when there is none, or when it is damaged or of another format version.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self._dir = runtime_dir
        self._mutex = threading.Lock()
        self._open()

    def _open(self) -> None:
        path = self._dir / "catalogue.head"
        try:
            with path.open("rb") as file:
                self._inode = os.fstat(file.fileno()).st_ino
                head = mmap.mmap(file.fileno(), fmt.HEAD_SIZE, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "too short"
            raise CatalogueError(f"no catalogue at {path}: {reason}", hint="is the shim running here?") from error
        magic, version, *_, boot = fmt.HEAD.unpack_from(head)
        _check_format(path, magic == fmt.MAGIC_HEAD, version)
        self._head = head
        # Words 2 to 5: generation, confirmed, confirmed by the wall clock, boot.
        self._words = memoryview(head).cast("Q")
        self._same_boot = boot == fmt.boot_hash()
        self._snapshot = self._map_snapshot()

    @property
    def generation(self) -> int:
        """Of the last publication."""
        return self._words[2]

    @property
    def age_s(self) -> float:
        """Seconds since the shim last confirmed the content against Consul."""
        if self._same_boot or self._words[5] == fmt.boot_hash():
            return max(0, time.monotonic_ns() - self._words[3]) / 1e9
        return max(0, time.time_ns() - self._words[4]) / 1e9

    def lookup(self, name: str) -> Answer:
        """Who serves `name` now. Raises UnknownAgent; an agent that nobody serves has an empty answer."""
        words = self._words
        snapshot = self._snapshot
        age_ns = time.monotonic_ns() - words[3]
        if words[2] != snapshot.generation or age_ns > STALE_NS or not self._same_boot:
            snapshot = self._refresh()
            words = self._words
            age_ns = int(self.age_s * 1e9)
        entry = snapshot.cache.get(name)
        if entry is None:
            entry = self._decode(snapshot, name)
        age_s = age_ns / 1e9 if age_ns > 0 else 0.0
        return Answer(entry.agent, entry.instances, age_s, "catalogue", entry.held, snapshot.generation)

    def names(self) -> tuple[str, ...]:
        """Every agent of the catalogue, sorted."""
        return tuple(sorted(self.entries()))

    def entries(self) -> dict[str, Entry]:
        """Everything, decoded."""
        snapshot = self._refresh()
        found = (self._record(snapshot, position) for position in range(len(snapshot.hashes)))
        return {entry.agent: entry for entry in found}

    def _refresh(self) -> _Snapshot:
        """Map the current snapshot, and the head too if it was replaced or given up."""
        with self._mutex:
            if self._moved():
                self._open()
            elif self._snapshot.generation != self._words[2]:
                self._snapshot = self._map_snapshot()
            return self._snapshot

    def _moved(self) -> bool:
        try:
            return os.stat(self._dir / "catalogue.head").st_ino != self._inode
        except OSError:
            return False

    def _map_snapshot(self) -> _Snapshot:
        path = self._dir / "catalogue.snap"
        try:
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "empty"
            raise CatalogueError(f"no snapshot at {path}: {reason}", hint="is the shim running here?") from error
        if len(data) < fmt.SNAP.size:
            raise CatalogueError(f"{path} is damaged: {len(data)} bytes are no header", hint=_MEND)
        magic, version, count, generation, crc, _ = fmt.SNAP.unpack_from(data)
        _check_format(path, magic == fmt.MAGIC_SNAP, version)
        slots_at = fmt.SNAP.size + 8 * count
        end = slots_at + fmt.SLOT.size * count
        if end > len(data) or zlib.crc32(data[fmt.SNAP.size : end]) != crc:
            raise CatalogueError(f"{path} is damaged: its index does not match its checksum", hint=_MEND)
        hashes = memoryview(data)[fmt.SNAP.size : slots_at].cast("Q")
        return _Snapshot(generation, data, hashes, slots_at, {})

    def _decode(self, snapshot: _Snapshot, name: str) -> Entry:
        key = fmt.hash_of(name)
        position = bisect_left(snapshot.hashes, key)
        while position < len(snapshot.hashes) and snapshot.hashes[position] == key:
            entry = self._record(snapshot, position)
            if entry.agent == name:
                snapshot.cache[name] = entry
                return entry
            position += 1
        near = difflib.get_close_matches(name, self.names(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`outrider agents` lists them all"
        raise UnknownAgent(f"no agent {name} in the fleet", hint=hint)

    def _record(self, snapshot: _Snapshot, position: int) -> Entry:
        at = snapshot.slots_at + position * fmt.SLOT.size
        offset, length, crc = fmt.SLOT.unpack_from(snapshot.data, at)
        record = snapshot.data[offset : offset + length]
        if len(record) != length or zlib.crc32(record) != crc:
            raise CatalogueError(f"{self._dir / 'catalogue.snap'} is damaged: a record does not match", hint=_MEND)
        return _decode(record)


_MEND = "restart the shim: it writes the catalogue anew"


def _check_format(path: Path, known: bool, version: int) -> None:
    if not known:
        raise CatalogueError(f"{path} is not a catalogue", hint=_MEND)
    if version != fmt.FORMAT:
        raise CatalogueError(
            f"{path} has format {version}, this library reads format {fmt.FORMAT}",
            hint="agents and shim must use releases of Outrider with the same catalogue format",
        )
