"""Logs of agents: kept small while processes go on writing to them, and read from their end."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

ROTATE_BYTES = 10 * 1024 * 1024
BLOCK = 64 * 1024
FOLLOW_S = 0.2


def rotate(log_dir: Path, limit_bytes: int = ROTATE_BYTES) -> list[Path]:
    """Copy each agent's log that is too big to `NAME.log.1` and empty it; returns those. One old copy is kept.

    The process keeps its file and goes on appending: it is emptied, not renamed. Lines written between the copy and
    the emptying are lost; nothing is rotated twice at once.
    """
    rotated = []
    with contextlib.suppress(FileNotFoundError), os.scandir(log_dir / "agents") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # one log that cannot be read must not keep the others
                if entry.name.endswith(".log") and entry.stat(follow_symlinks=False).st_size > limit_bytes:
                    copy_and_empty(Path(entry.path))
                    rotated.append(Path(entry.path))
    return rotated


def copy_and_empty(path: Path) -> None:
    """Keep the content as `NAME.1` if the disk allows, and empty the file."""
    old = path.with_name(path.name + ".1")
    try:
        shutil.copyfile(path, old)
    except OSError:
        with contextlib.suppress(OSError):
            old.unlink()
    os.truncate(path, 0)


def tail(path: Path, lines: int) -> list[str]:
    """The last `lines` lines without their ends. Reads only the end of the file. Raises OSError if it cannot."""
    with open(path, "rb") as file:
        return _tail(file.fileno(), os.fstat(file.fileno()).st_size, lines)


async def follow(path: Path, lines: int) -> AsyncIterator[str]:
    """The last lines and then everything that is appended, as text in pieces, until the caller stops asking.

    Goes on after a rotation. Raises OSError if there is no such file.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    fd = os.open(path, os.O_RDONLY)
    try:
        at = os.fstat(fd).st_size
        if last := _tail(fd, at, lines):
            yield "\n".join(last) + ("\n" if os.pread(fd, 1, at - 1) == b"\n" else "")
        while True:
            if os.fstat(fd).st_size < at:
                at = 0  # it was emptied
            while data := os.pread(fd, BLOCK, at):
                at += len(data)
                yield decoder.decode(data)
            await asyncio.sleep(FOLLOW_S)
    finally:
        os.close(fd)


def _tail(fd: int, size: int, lines: int) -> list[str]:
    if lines <= 0:
        return []
    blocks: list[bytes] = []
    at, ends = size, 0
    while at > 0 and ends <= lines:
        step = min(BLOCK, at)
        at -= step
        blocks.append(os.pread(fd, step, at))
        ends += blocks[-1].count(b"\n")
    found = b"".join(reversed(blocks)).decode(errors="replace").split("\n")
    if found and not found[-1]:
        found.pop()
    return found[-lines:]
