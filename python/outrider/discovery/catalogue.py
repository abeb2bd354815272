"""Writing the catalogue: one shim publishes, any number of processes read (see format.py, reader.py)."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from outrider.discovery import format as fmt
from outrider.discovery.reader import Catalogue
from outrider.discovery.records import Entry
from outrider.errors import CatalogueError, OutriderError

__all__ = ["Catalogue", "CatalogueWriter"]


class CatalogueWriter:
    """The one writer of a runtime folder. Raises CatalogueError if another lives, or the folder cannot be written."""

    def __init__(self, runtime_dir: Path) -> None:
        self._dir = runtime_dir
        self._snap = runtime_dir / "catalogue.snap"
        self._lock = self._take_lock()
        self._head = self._map_head()
        self._records: list[tuple[int, bytes]] | None = None
        struct.pack_into("<I", self._head, fmt.AT_RETIRED, 0)

    @property
    def generation(self) -> int:
        """Counts publications; it never goes back, also over restarts of the shim."""
        return int(struct.unpack_from("<Q", self._head, fmt.AT_GENERATION)[0])

    def publish(self, entries: Mapping[str, Entry]) -> int:
        """Make `entries` what readers see, and return the generation. The same content again changes nothing.

        Raises CatalogueError when it cannot be written (a full disk): readers keep the last snapshot.
        """
        records = fmt.encode_records(entries)
        if records != self._records:
            generation = self.generation + 1
            self._replace(fmt.snapshot(records, generation))
            self._records = records
            self._stamp()
            struct.pack_into("<Q", self._head, fmt.AT_GENERATION, generation)
            # A change through a mapping wakes no inotify watch; a touched time stamp does.
            os.utime(self._dir / "catalogue.head")
        return self.generation

    def confirm(self) -> None:
        """The content was found still to be true: its age starts anew."""
        self._stamp()

    def retire(self) -> None:
        """Tell readers that this folder is given up, so that they look for a new one."""
        struct.pack_into("<I", self._head, fmt.AT_RETIRED, 1)

    def close(self) -> None:
        """Give up writing; the files stay and go on answering."""
        self._head.close()
        os.close(self._lock)

    def load_last(self) -> dict[str, Entry]:
        """What an earlier shim published last; empty if there is nothing, or it is damaged."""
        with contextlib.suppress(OutriderError):
            return Catalogue(self._dir).entries()
        return {}

    def _take_lock(self) -> int:
        path = self._dir / "catalogue.lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CatalogueError(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise CatalogueError(
                f"another shim publishes in {self._dir}", hint="one shim per runtime folder"
            ) from error
        return lock

    def _map_head(self) -> mmap.mmap:
        """The head that readers have mapped, if it is sound; else a new one, moved into place complete."""
        path = self._dir / "catalogue.head"
        try:
            if not self._sound(path):
                fresh = fmt.HEAD.pack(fmt.MAGIC_HEAD, fmt.FORMAT, 0, self._snap_generation(), 0, 0, fmt.boot_hash())
                scratch = path.with_suffix(".new")
                scratch.write_bytes(fresh.ljust(fmt.HEAD_SIZE, b"\0"))
                scratch.chmod(0o644)
                scratch.replace(path)
            with path.open("r+b") as file:
                return mmap.mmap(file.fileno(), fmt.HEAD_SIZE)
        except OSError as error:
            raise CatalogueError(f"{path}: {error.strerror}") from error

    def _sound(self, path: Path) -> bool:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return False
        return len(data) == fmt.HEAD_SIZE and fmt.HEAD.unpack_from(data)[:2] == (fmt.MAGIC_HEAD, fmt.FORMAT)

    def _snap_generation(self) -> int:
        """A lost head must not take the generation back behind a snapshot that readers have seen."""
        try:
            magic, version, _, generation, _, _ = fmt.SNAP.unpack_from(self._snap.read_bytes())
        except (OSError, struct.error):
            return 0
        return int(generation) if (magic, version) == (fmt.MAGIC_SNAP, fmt.FORMAT) else 0

    def _replace(self, data: bytes) -> None:
        scratch = self._snap.with_suffix(".new")
        try:
            with scratch.open("wb") as file:
                file.write(data)
            scratch.chmod(0o644)
            scratch.replace(self._snap)
        except OSError as error:
            with contextlib.suppress(OSError):
                scratch.unlink()
            raise CatalogueError(f"the catalogue {self._snap} cannot be written: {error.strerror}") from error

    def _stamp(self) -> None:
        struct.pack_into("<Q", self._head, fmt.AT_CONFIRMED_WALL, time.time_ns())
        struct.pack_into("<Q", self._head, fmt.AT_BOOT, fmt.boot_hash())
        struct.pack_into("<Q", self._head, fmt.AT_CONFIRMED, time.monotonic_ns())
