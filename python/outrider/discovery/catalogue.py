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
        self._words = memoryview(self._head).cast("Q")
        self._records: list[tuple[int, bytes]] | None = None
        self._set_retired(0)
        self._finish_publication()

    @property
    def generation(self) -> int:
        """Counts publications; it never goes back, also over restarts of the shim."""
        return int(self._words[fmt.AT_GENERATION])

    def publish(self, entries: Mapping[str, Entry]) -> int:
        """Make `entries` what readers see, and return the generation. The same content again changes nothing.

        Their age stays: only `confirm` says that they were found to be true (the first publication of all counts as
        that). Raises CatalogueError when it cannot be written (a full disk): readers keep the last snapshot.
        """
        records = fmt.encode_records(entries)
        if records != self._records:
            generation = self.generation + 1
            self._replace(fmt.snapshot(records, generation))
            self._records = records
            if not self._words[fmt.AT_CONFIRMED]:
                self.confirm()
            self._announce(generation)
        return self.generation

    def confirm(self) -> None:
        """The content was found still to be true: its age starts anew."""
        # In this order a reader finds each time beside the boot that it belongs to, or falls back to the wall clock.
        self._words[fmt.AT_CONFIRMED_WALL] = time.time_ns()
        self._words[fmt.AT_CONFIRMED] = time.monotonic_ns()
        self._words[fmt.AT_BOOT] = fmt.boot_hash()

    def retire(self) -> None:
        """Tell readers that this host left the fleet; a new writer takes it back."""
        self._set_retired(1)

    def close(self) -> None:
        """Give up writing; the files stay and go on answering."""
        self._words.release()
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
                scratch = self._dir / "catalogue.head.new"
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
            with self._snap.open("rb") as file:
                magic, version, _, generation, _, _ = fmt.SNAP.unpack(file.read(fmt.SNAP.size))
        except (OSError, struct.error):
            return 0
        return int(generation) if (magic, version) == (fmt.MAGIC_SNAP, fmt.FORMAT) else 0

    def _finish_publication(self) -> None:
        """If the last shim was killed between snapshot and generation, its number must not be given a second time.

        A reader may have that snapshot mapped already, and would take another one of the same number for it.
        """
        if (generation := self._snap_generation()) > self.generation:
            self._announce(generation)

    def _announce(self, generation: int) -> None:
        self._words[fmt.AT_GENERATION] = generation
        # A change through a mapping wakes no inotify watch; a touched time stamp does.
        with contextlib.suppress(OSError):
            os.utime(self._dir / "catalogue.head")

    def _set_retired(self, value: int) -> None:
        with memoryview(self._head).cast("I") as words:
            words[fmt.AT_RETIRED] = value

    def _replace(self, data: bytes) -> None:
        scratch = self._dir / "catalogue.snap.new"
        try:
            with scratch.open("wb") as file:
                file.write(data)
            scratch.chmod(0o644)
            scratch.replace(self._snap)
        except OSError as error:
            with contextlib.suppress(OSError):
                scratch.unlink()
            raise CatalogueError(f"the catalogue {self._snap} cannot be written: {error.strerror}") from error
