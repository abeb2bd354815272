"""Events on disk: lines of JSON in two files of bounded size, written by a thread, read back at the next start."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from outrider.observe.events import Event

log = logging.getLogger("outrider.events")

FILE_BYTES = 4 * 2**20
KEPT = 10_000


class EventStore:
    """`<state_dir>/events.jsonl`, and `events.old.jsonl` before it. `recent` holds the last of both, oldest first."""

    def __init__(self, state_dir: Path, *, file_bytes: int = FILE_BYTES, kept: int = KEPT) -> None:
        self._path = state_dir / "events.jsonl"
        self._old = state_dir / "events.old.jsonl"
        self._file_bytes = file_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="events")
        self._failed = False
        self.recent: deque[Event] = deque((*_read(self._old), *_read(self._path)), maxlen=kept)

    def add(self, events: Iterable[Event]) -> None:
        """Remember them now, and write them soon. That the disk is full loses what is on disk alone, and is said."""
        added = list(events)
        if added:
            self.recent.extend(added)
            self._thread.submit(self._write, b"".join(msgspec.json.encode(event) + b"\n" for event in added))

    def close(self) -> None:
        """Write what is left."""
        self._thread.shutdown(wait=True)

    def _write(self, lines: bytes) -> None:
        try:
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_size + len(lines) > self._file_bytes:
                    self._path.replace(self._old)
            with self._path.open("ab") as file:
                file.write(lines)
        except OSError as error:
            if not self._failed:
                log.error("events are not kept on disk: %s: %s", self._path, error.strerror)
            self._failed = True
        else:
            self._failed = False


def _read(path: Path) -> list[Event]:
    """What can be read of a file: a last line that was cut off, or a damaged one, is left out."""
    events = []
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(msgspec.MsgspecError):
                events.append(msgspec.json.decode(line, type=Event))
    return events
