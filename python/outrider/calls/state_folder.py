"""What an agent's state folder holds, and what another copy of it lacks. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

CHUNK = 1024 * 1024
OURS = ".outrider"  # what the library keeps in a state folder; no part of the state

Kind = Literal["file", "link", "folder"]
Base = Literal["staged", "own", "linked", "none"]


class Item(Struct, frozen=True, array_like=True):
    """One file, link or folder. `path` is relative to the state folder; `hashes` are those of a file's chunks."""

    path: str
    kind: Kind
    mode: int = 0
    size: int = 0
    mtime_ns: int = 0
    target: str = ""
    hashes: tuple[bytes, ...] = ()

    def has_content_of(self, other: Item) -> bool:
        """Whether both are files of the same bytes."""
        return self.kind == other.kind == "file" and (self.size, self.hashes) == (other.size, other.hashes)


Manifest = tuple[Item, ...]  # sorted by path, so that a folder stands before what is in it


class Step(Struct, frozen=True):
    """How one file of a copy is made: from which base, and which chunks of it are to be fetched."""

    item: Item
    base: Base
    chunks: tuple[int, ...] = ()
    room: int = 0  # bytes that it takes on the disk


def hash_of(data: bytes | bytearray | memoryview) -> bytes:
    """Of one chunk. Processors have instructions for SHA-256: 16 MB take 17 ms, and 35 ms by BLAKE2."""
    return hashlib.sha256(data).digest()


def digest(manifest: Manifest) -> str:
    """Equal for folders that hold the same. Times are not part of it."""
    said = [(item.path, item.kind, item.mode, item.size, item.target, item.hashes) for item in manifest]
    return hashlib.blake2b(msgspec.msgpack.encode(said), digest_size=32).hexdigest()


def chunks_of(size: int) -> int:
    """How many chunks a file of that size has."""
    return -(-size // CHUNK)


def unsafe(manifest: Manifest) -> str:
    """Why no folder is made from it; empty if it is sound and nothing of it lies outside of the folder."""
    kinds: dict[str, Kind] = {"": "folder"}
    for item in manifest:
        parent, slash, name = item.path.rpartition("/")
        if name in ("", ".", "..") or "\0" in item.path or (slash and not parent):
            return f"{item.path!r} is no path in a state folder"
        # What is in a folder that was not named, or in a link, might be anywhere.
        if kinds.get(parent) != "folder":
            return f"{item.path!r} is in no folder of it"
        if item.path in kinds or item.path == OURS:
            return f"{item.path!r} may not be in it"
        if item.kind == "file" and (item.size < 0 or len(item.hashes) != chunks_of(item.size)):
            return f"{item.path!r} has {len(item.hashes)} chunks and {item.size} bytes"
        if item.mode & ~0o777:
            return f"{item.path!r} has the mode {item.mode:o}"
        kinds[item.path] = item.kind
    return ""


def steps(wanted: Manifest, staged: Mapping[str, Item], own: Mapping[str, Item]) -> list[Step]:
    """How each file of `wanted` is made from what an earlier copy left and from the own state."""
    return [_step(item, staged.get(item.path), own.get(item.path)) for item in wanted if item.kind == "file"]


def _step(item: Item, staged: Item | None, own: Item | None) -> Step:
    if staged and staged.kind == "file":
        grown = max(0, item.size - staged.size)
        return Step(item, "staged", _differing(item, staged), grown)
    if own and own.kind == "file":
        if item.has_content_of(own) and (item.mode, item.mtime_ns) == (own.mode, own.mtime_ns):
            return Step(item, "linked")
        chunks = _differing(item, own)
        if len(chunks) < len(item.hashes):
            return Step(item, "own", chunks, max(item.size, own.size))
    return Step(item, "none", tuple(range(len(item.hashes))), item.size)


def _differing(wanted: Item, here: Item) -> tuple[int, ...]:
    return tuple(n for n, known in enumerate(wanted.hashes) if n >= len(here.hashes) or here.hashes[n] != known)


def superfluous(wanted: Manifest, staged: Iterable[Item]) -> list[Item]:
    """What an earlier copy left that has no place in this one, the innermost first."""
    kinds = {item.path: item.kind for item in wanted}
    return sorted((item for item in staged if kinds.get(item.path) != item.kind), key=lambda i: i.path, reverse=True)
