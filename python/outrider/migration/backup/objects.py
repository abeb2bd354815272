"""Pieces of content named by their SHA-256, shared by all backups of a host."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from outrider.errors import BackupDamaged
from outrider.migration.backup.disk import Disk, said

PIECE = 4 << 20  # a file that grew, or was changed in one place, shares all its other pieces with the backup before


class Put(Protocol):
    """Takes a piece of content and returns its digest, empty for zeros."""

    def put(self, piece: bytes) -> str: ...


class Counting:
    """Keeps nothing: for check mode."""

    def put(self, piece: bytes) -> str:
        """Only the digest."""
        return digest_of(piece)


def digest_of(piece: bytes) -> str:
    """Of zeros none: they are a hole."""
    if not piece.strip(b"\0"):
        return ""
    return hashlib.sha256(piece).hexdigest()


class Objects:
    """The objects below `root`, and those that a run has staged in `incoming` and not yet kept."""

    def __init__(self, root: Path, incoming: Path, disk: Disk) -> None:
        self._root, self._incoming, self._disk = root, incoming, disk
        self._staged: dict[str, Path] = {}

    def put(self, piece: bytes) -> str:
        """Stage it unless it is there whole. Raises BackupError.

        One that is there damaged is replaced, which mends older backups too.
        """
        digest = digest_of(piece)
        if digest and digest not in self._staged and not is_whole(place(self._root, digest), digest):
            path = self._incoming / digest
            try:
                self._disk.write(path, piece)
            except OSError as error:  # else it would be taken for one of what is being copied
                raise said(error, path) from error
            self._staged[digest] = path
        return digest

    def keep(self) -> None:
        """Bring what is staged to the disk, then to its place: an object with a final name is a whole one."""
        for path in self._staged.values():
            self._disk.sync(path)
        folders = set()
        for digest, path in self._staged.items():
            to = place(self._root, digest)
            self._disk.folder(to.parent)
            self._disk.rename(path, to)
            folders.add(to.parent)
        for folder in {*folders, self._root}:
            self._disk.sync(folder)
        self._staged.clear()


def place(root: Path, digest: str) -> Path:
    """Where an object is."""
    return root / digest[:2] / digest


def is_whole(path: Path, digest: str) -> bool:
    """Whether the object is there, and is what its name says."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except FileNotFoundError:
        return False


def read(root: Path, digest: str, of: str) -> bytes:
    """Content of an object, checked. `of`: what is being read, for the refusal. Raises BackupDamaged."""
    path = place(root, digest)
    try:
        with open(path, "rb", opener=_plain) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            piece = file.read()
    except OSError as error:
        raise BackupDamaged(f"{of}: its content {path}: {error.strerror}") from error
    found = hashlib.sha256(piece).hexdigest()
    if found != digest:
        raise BackupDamaged(
            f"{of}: its content {path} is damaged\n  expected sha256 {digest}\n"
            f"  found    sha256 {found}, {len(piece)} bytes"
        )
    return piece


def all_objects(root: Path) -> Iterator[Path]:
    """Every object that is kept."""
    yield from root.glob("[0-9a-f][0-9a-f]/*")


def _plain(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW)
