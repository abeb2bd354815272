"""Puts a staged state in the place of the one that is there: after a crash it is one or the other, never a mixture.

The state folder itself may be a mount of systemd's, so what is in it is renamed, entry by entry, by a journal. Once
that is written, the new state counts, and whoever starts next finishes what was begun.

    STATE/.outrider/new      the staged copy, complete and on the disk before a journal is written
    STATE/.outrider/old      what was there
    STATE/.outrider/journal  names to move out, and names to move in
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from outrider.calls.state_folder import OURS
from outrider.errors import HostError

JOURNAL = "journal"


class Journal(Struct, frozen=True):
    """Names of what stands at the top of the folder: what moves out, what moves in."""

    out: tuple[str, ...]
    into: tuple[str, ...]


def new_folder(state: Path) -> Path:
    """Where a copy is staged."""
    return state / OURS / "new"


def old_folder(state: Path) -> Path:
    """Where what was replaced is until it is deleted."""
    return state / OURS / "old"


def swap(state: Path, rename: Callable[[Path, Path], None] = os.rename) -> None:
    """Replace the state by the staged one, which is complete and synced. Raises OSError, and the old state is back."""
    delete_old(state)
    old_folder(state).mkdir(mode=0o700)
    out = tuple(sorted(name for name in os.listdir(state) if name != OURS))
    journal = Journal(out, tuple(sorted(os.listdir(new_folder(state)))))
    _write(state / OURS, msgspec.json.encode(journal))
    try:
        _go_on(state, journal, rename)
    except OSError:
        _undo(state, journal, rename)
        raise


def recover(state: Path) -> bool:
    """Finish a swap that a crash cut off; whether there was one. Raises HostError if that cannot be done."""
    try:
        journal = msgspec.json.decode((state / OURS / JOURNAL).read_bytes(), type=Journal)
    except FileNotFoundError:
        return False
    except (OSError, msgspec.MsgspecError) as error:
        raise HostError(f"{state / OURS / JOURNAL}: {error}", hint="restore the state from a backup") from error
    try:
        _go_on(state, journal, os.rename)
    except OSError as error:
        raise HostError(f"{state}: its state is half replaced: {error}", hint="start it again") from error
    delete_old(state)
    return True


def delete_old(state: Path) -> None:
    """What a swap replaced. Raises OSError."""
    remove(old_folder(state))


def remove(path: Path) -> None:
    """A folder with all that is in it, whatever rights its folders give. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        for folder, _, _ in os.walk(path):
            os.chmod(folder, 0o700)
        shutil.rmtree(path)


def sync_folder(path: Path) -> None:
    """What was renamed in it is so after a power failure too."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _go_on(state: Path, journal: Journal, rename: Callable[[Path, Path], None]) -> None:
    new, old = new_folder(state), old_folder(state)
    for name in journal.out:
        # What is in `old` has left; what is not there yet is still the old one, because nothing comes in before.
        if not os.path.lexists(old / name) and os.path.lexists(state / name):
            rename(state / name, old / name)
    sync_folder(old)
    for name in journal.into:
        if os.path.lexists(new / name):
            rename(new / name, state / name)
    sync_folder(state)
    _end(state)


def _undo(state: Path, journal: Journal, rename: Callable[[Path, Path], None]) -> None:
    """Raises OSError if that fails too: the journal stays, and the next start goes forward."""
    new, old = new_folder(state), old_folder(state)
    for name in journal.into:
        if not os.path.lexists(new / name):
            rename(state / name, new / name)
    for name in journal.out:
        if os.path.lexists(old / name):
            rename(old / name, state / name)
    sync_folder(state)
    _end(state)


def _write(folder: Path, data: bytes) -> None:
    scratch = folder / f"{JOURNAL}.new"
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(folder / JOURNAL)
    sync_folder(folder)


def _end(state: Path) -> None:
    (state / OURS / JOURNAL).unlink()
    sync_folder(state / OURS)
