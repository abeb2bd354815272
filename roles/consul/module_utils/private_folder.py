"""A folder that only its owner may read, written by one run at a time, each file whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

LOCK_WAIT_S = 30.0


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder, and waits for other runs. Raises TimeoutError if one has it for longer than 30 s."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_WAIT_S
    with open(os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600), "rb+", buffering=0) as stream:
        while not _lock(stream.fileno()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another run has {folder} for {LOCK_WAIT_S:.0f} s already; try again later")
            time.sleep(0.02)
        yield


def _lock(descriptor: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def read(path: Path) -> bytes | None:
    """None if it is not there."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return None


def put(path: Path, data: bytes) -> None:
    """Only the holder of the lock writes, so a fixed name serves for what is not whole yet."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(new, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_to_others(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The folder itself and what the patterns name in it, where others than its owner may use it."""
    paths = [folder, *(path for pattern in patterns for path in sorted(folder.glob(pattern)))]
    return [path for path in paths if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077]


def close_to_others(path: Path) -> None:
    path.chmod(0o700 if path.is_dir() else 0o600)
