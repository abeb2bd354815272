"""Reads a state folder: what is in it, and the hashes of what changed since it was read before."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from outrider.calls.state_folder import CHUNK, OURS, Item, Manifest, chunks_of, hash_of
from outrider.errors import CallRefused

# A file written this short a time ago may be written again without a change of its times.
TICK_NS = 50_000_000

Key = tuple[int, ...]  # of a file: changes whenever its bytes do
INODE = 3


class Scanner:
    """Of one folder, one scan at a time. `private`: nobody but ourselves writes there."""

    def __init__(self, root: Path, *, private: bool = False) -> None:
        self._root = root
        self._private = private
        self._known: dict[str, tuple[Key, tuple[bytes, ...]]] = {}
        self._scanning = threading.Lock()

    def scan(self, *, settle: bool = False) -> Manifest:
        """What is there now. Sockets and devices are passed over, and so is what vanishes meanwhile.

        settle: remember the hashes of what is written to the disk, so that the next scan reads only what changed
        Raises OSError, and CallRefused for a name that cannot be sent.
        """
        with self._scanning:
            return self._scan(settle=settle)

    def _scan(self, *, settle: bool) -> Manifest:
        mapped = _mapped_inodes()
        found = []
        kept = {}
        for path, status in self._walk():
            item = self._item(path, status, settle=settle, mapped=mapped)
            if item is not None:
                found.append(item)
                if path in self._known:
                    kept[path] = self._known[path]
        self._known = kept
        return tuple(sorted(found, key=lambda item: item.path))

    def stamp(self) -> dict[str, Key]:
        """Changes when anything in the folder does, and costs no reading of files."""
        return {path: _key(status) for path, status in self._walk()}

    def amend(self, path: str, chunks: Iterable[int]) -> None:
        """Read these chunks of a file anew, so that the next scan need not read the rest, which is as it was.

        For a private folder. A file that is not known, or is another one now, is left to the next scan.
        """
        known = self._known.get(path)
        with open(self._root / path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if known is None or known[0][INODE] != status.st_ino:
                return
            hashes = list(known[1][: chunks_of(status.st_size)])
            hashes += [b""] * (chunks_of(status.st_size) - len(hashes))
            for number in chunks:
                hashes[number] = hash_of(os.pread(file.fileno(), CHUNK, number * CHUNK))
        self._known[path] = _key(status), tuple(hashes)

    def _walk(self, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
        """Relative paths. A folder that cannot be read is an error: half of a state is none."""
        try:
            with os.scandir(self._root / below) as entries:
                found = list(entries)
        except FileNotFoundError:
            return
        for entry in found:
            path = f"{below}/{entry.name}" if below else entry.name
            if path == OURS:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                yield from self._walk(path)

    def _item(self, path: str, status: os.stat_result, *, settle: bool, mapped: frozenset[int]) -> Item | None:
        mode = stat.S_IMODE(status.st_mode) & 0o777
        _check_name(path)
        try:
            if stat.S_ISDIR(status.st_mode):
                return Item(path, "folder", mode)
            if stat.S_ISLNK(status.st_mode):
                return Item(path, "link", target=os.readlink(self._root / path))
            if stat.S_ISREG(status.st_mode):
                return self._file(path, settle=settle, mapped=mapped)
        except FileNotFoundError:
            pass
        return None

    def _file(self, path: str, *, settle: bool, mapped: frozenset[int]) -> Item:
        fd = os.open(self._root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            key = _key(status)
            known = self._known.get(path)
            if known and known[0] == key and status.st_ino not in mapped:
                size, hashes = status.st_size, known[1]
            else:
                if settle:
                    # After this a write through a mapping changes the times again, so that it is noticed.
                    os.fsync(fd)
                size, hashes = _hashes(fd)
                self._remember(path, key, hashes, settle=settle and size == status.st_size)
        finally:
            os.close(fd)
        return Item(path, "file", stat.S_IMODE(status.st_mode) & 0o777, size, status.st_mtime_ns, hashes=hashes)

    def _remember(self, path: str, key: Key, hashes: tuple[bytes, ...], *, settle: bool) -> None:
        written = max(key[:2])
        if settle and (self._private or time.time_ns() - written > TICK_NS):
            self._known[path] = key, hashes
        else:
            self._known.pop(path, None)


def read_chunk(root: Path, path: str, number: int) -> bytes:
    """One chunk of a file. No link is followed, and nothing outside of `root` is read. Raises OSError."""
    *folders, name = path.split("/")
    if number < 0 or any(part in ("", ".", "..") for part in (*folders, name)) or path.split("/")[0] == OURS:
        raise CallRefused(f"{path!r} is no path in a state folder")
    at = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise CallRefused(f"{path!r} is no file")
            return os.pread(fd, CHUNK, number * CHUNK)
        finally:
            os.close(fd)
    finally:
        os.close(at)


def _key(status: os.stat_result) -> Key:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev, status.st_mode


def _hashes(fd: int) -> tuple[int, tuple[bytes, ...]]:
    size, hashes = 0, []
    while data := os.pread(fd, CHUNK, size):
        hashes.append(hash_of(data))
        size += len(data)
        if len(data) < CHUNK:
            break
    return size, tuple(hashes)


def _check_name(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise CallRefused(f"{path!r}: state moves only under names that are UTF-8") from None


def _mapped_inodes() -> frozenset[int]:
    """Files that this process may write through shared memory, which need not change their times."""
    found = set()
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            _, rights, _, _, inode, *_ = line.split(maxsplit=5)
            if rights[1] == "w" and rights[3] == "s":
                found.add(int(inode))
    return frozenset(found)
