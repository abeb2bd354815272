"""Reading the catalogue: a lookup is a few memory reads, and a decode only after a publication."""

from __future__ import annotations

import difflib
import mmap
import os
import time
import zlib
from bisect import bisect_left
from pathlib import Path

import msgspec
from msgspec import Struct

from outrider.discovery import format as fmt
from outrider.discovery.format import AT_BOOT, AT_CONFIRMED, AT_CONFIRMED_WALL, AT_GENERATION, AT_RETIRED
from outrider.discovery.records import Answer, Entry
from outrider.errors import CatalogueError, UnknownAgent

STALE_NS = 1_000_000_000  # older than this, a reader looks whether the files were replaced under it
LOOK_NS = 100_000_000  # ... and then this often
MEND = "restart the shim: it writes the catalogue anew"

_decode = msgspec.msgpack.Decoder(Entry).decode


class _Head(Struct):
    """The mapped head. `same_boot`: its monotonic time compares with ours."""

    inode: int
    mapped: mmap.mmap
    words: memoryview
    same_boot: bool

    def age_ns(self, now_ns: int) -> int:
        """Since the content was confirmed; the wall clock only where no other reaches."""
        if self.same_boot:
            return max(0, now_ns - self.words[AT_CONFIRMED])
        return max(0, time.time_ns() - self.words[AT_CONFIRMED_WALL])


class _Snapshot(Struct):
    """A mapped snapshot. `seen`: the head's generation before it was mapped; `cache`: entries decoded so far."""

    seen: int
    generation: int
    data: mmap.mmap
    hashes: memoryview
    slots_at: int
    crc: int
    cache: dict[str, Entry]


class Catalogue:
    """Reads the catalogue of one runtime folder. One per process is enough; threads and forks may share it, no lock.

    Raises CatalogueError when there is none, or when it is damaged or of another format version. A catalogue that was
    read once goes on answering, with its age, when its files are gone.
    """

    def __init__(self, runtime_dir: Path) -> None:
        self._head_path = runtime_dir / "catalogue.head"
        self._snap_path = runtime_dir / "catalogue.snap"
        self._look_at_ns = 0
        # One attribute, so that a thread never sees the head of one catalogue with the snapshot of another.
        self._view = self._open()

    @property
    def generation(self) -> int:
        """Of the last publication."""
        return int(self._view[0].words[AT_GENERATION])

    @property
    def age_s(self) -> float:
        """Seconds since the shim last confirmed the content against Consul."""
        head, _ = self._refresh(time.monotonic_ns())
        return head.age_ns(time.monotonic_ns()) / 1e9

    @property
    def retired(self) -> bool:
        """True if the shim took its host out of the fleet, and nothing confirms the content any more."""
        return memoryview(self._view[0].mapped).cast("I")[AT_RETIRED] != 0

    def lookup(self, name: str) -> Answer:
        """Who serves `name` now. Raises UnknownAgent; an agent that nobody serves has an empty answer."""
        head, snapshot = self._view
        now_ns = time.monotonic_ns()
        age_ns = now_ns - head.words[AT_CONFIRMED]
        if head.words[AT_GENERATION] != snapshot.seen or age_ns > STALE_NS or not head.same_boot:
            head, snapshot = self._refresh(now_ns)
            age_ns = head.age_ns(now_ns)
        entry = snapshot.cache.get(name) or self._decode(snapshot, name)
        age_s = age_ns / 1e9 if age_ns > 0 else 0.0
        return Answer(entry.agent, entry.instances, age_s, "catalogue", entry.held, snapshot.generation, entry.lost)

    def refresh(self) -> None:
        """Look now whether the files were replaced; lookups do so only once the content is a second old."""
        self._look_at_ns = 0
        self._refresh(time.monotonic_ns())

    def names(self) -> tuple[str, ...]:
        """Every agent of the catalogue, sorted."""
        return tuple(sorted(self.entries()))

    def entries(self) -> dict[str, Entry]:
        """Everything, decoded."""
        _, snapshot = self._refresh(time.monotonic_ns())
        return self._entries(snapshot)

    def _refresh(self, now_ns: int) -> tuple[_Head, _Snapshot]:
        """The view of now: another head if that was replaced, another snapshot if one was published."""
        head, snapshot = self._view
        if now_ns >= self._look_at_ns:
            self._look_at_ns = now_ns + LOOK_NS
            if self._replaced(head):
                self._view = self._open()
                return self._view
        head.same_boot = head.words[AT_BOOT] == fmt.boot_hash()
        if head.words[AT_GENERATION] != snapshot.seen:
            self._view = head, self._map_snapshot(head)
        return self._view

    def _replaced(self, head: _Head) -> bool:
        """True if there is another catalogue, complete. One that is gone, or not yet written, changes nothing."""
        try:
            return os.stat(self._head_path).st_ino != head.inode and self._snap_path.exists()
        except OSError:
            return False

    def _open(self) -> tuple[_Head, _Snapshot]:
        path = self._head_path
        try:
            with path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                mapped = mmap.mmap(file.fileno(), fmt.HEAD_SIZE, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "too short"
            raise CatalogueError(f"no catalogue at {path}: {reason}", hint="is the shim running here?") from error
        magic, version, *_, boot = fmt.HEAD.unpack_from(mapped)
        _check_format(path, magic == fmt.MAGIC_HEAD, version)
        head = _Head(inode, mapped, memoryview(mapped).cast("Q"), boot == fmt.boot_hash())
        return head, self._map_snapshot(head)

    def _map_snapshot(self, head: _Head) -> _Snapshot:
        seen = head.words[AT_GENERATION]
        path = self._snap_path
        try:
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "empty"
            raise CatalogueError(f"no snapshot at {path}: {reason}", hint="is the shim running here?") from error
        if len(data) < fmt.SNAP.size:
            raise CatalogueError(f"{path} is damaged: {len(data)} bytes are no header", hint=MEND)
        magic, version, count, generation, crc, _ = fmt.SNAP.unpack_from(data)
        _check_format(path, magic == fmt.MAGIC_SNAP, version)
        slots_at = fmt.SNAP.size + 8 * count
        if slots_at + fmt.SLOT.size * count > len(data):
            raise CatalogueError(f"{path} is damaged: {len(data)} bytes cannot hold {count} agents", hint=MEND)
        hashes = memoryview(data)[fmt.SNAP.size : slots_at].cast("Q")
        return _Snapshot(seen, generation, data, hashes, slots_at, crc, {})

    def _decode(self, snapshot: _Snapshot, name: str) -> Entry:
        key = fmt.hash_of(name)
        position = bisect_left(snapshot.hashes, key)
        while position < len(snapshot.hashes) and snapshot.hashes[position] == key:
            entry = self._record(snapshot, position)
            if entry.agent == name:
                snapshot.cache[name] = entry
                return entry
            position += 1
        near = difflib.get_close_matches(name, self._entries(snapshot), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`outrider agents` lists them all"
        raise UnknownAgent(f"no agent {name} in the fleet", hint=hint)

    def _entries(self, snapshot: _Snapshot) -> dict[str, Entry]:
        end = snapshot.slots_at + fmt.SLOT.size * len(snapshot.hashes)
        if zlib.crc32(memoryview(snapshot.data)[fmt.SNAP.size : end]) != snapshot.crc:
            raise CatalogueError(f"{self._snap_path} is damaged: its index does not match its checksum", hint=MEND)
        found = (self._record(snapshot, position) for position in range(len(snapshot.hashes)))
        return {entry.agent: entry for entry in found}

    def _record(self, snapshot: _Snapshot, position: int) -> Entry:
        at = snapshot.slots_at + position * fmt.SLOT.size
        offset, length, crc = fmt.SLOT.unpack_from(snapshot.data, at)
        record = snapshot.data[offset : offset + length]
        if len(record) != length or zlib.crc32(record) != crc:
            raise CatalogueError(f"{self._snap_path} is damaged: a record does not match its checksum", hint=MEND)
        try:
            return _decode(record)
        except msgspec.MsgspecError as error:
            raise CatalogueError(f"{self._snap_path} holds a record that is no entry: {error}", hint=MEND) from error


def _check_format(path: Path, known: bool, version: int) -> None:
    if not known:
        raise CatalogueError(f"{path} is not a catalogue", hint=MEND)
    if version != fmt.FORMAT:
        raise CatalogueError(
            f"{path} has format {version}, this library reads format {fmt.FORMAT}",
            hint="agents and shim must use releases of Outrider with the same catalogue format",
        )
