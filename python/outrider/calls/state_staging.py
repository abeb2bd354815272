"""Builds a copy of another instance's state beside the own one. What an earlier copy brought is kept and completed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from outrider.calls.state_folder import CHUNK, Manifest, Step, digest, steps, superfluous
from outrider.calls.state_scan import Scanner
from outrider.calls.state_swap import new_folder, remove, sync_folder

SPARE = 16 * CHUNK  # left free on the disk beside what the copy takes


class Staging:
    """Of one instance. Its methods block, and one runs at a time, except `write`. All raise OSError."""

    def __init__(self, state: Path, own: Scanner) -> None:
        self._folder = new_folder(state)
        self._state = state
        self._own = own
        self._scanner = Scanner(self._folder, private=True)

    def prepare(self, wanted: Manifest) -> list[Step]:
        """Everything but the chunks that the steps name."""
        self._folder.parent.mkdir(mode=0o700, exist_ok=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        staged = {item.path: item for item in self._scanner.scan(settle=True)}
        fresh = any(item.kind == "file" and item.path not in staged for item in wanted)
        # The own state is read only where something might be taken from it.
        own = {item.path: item for item in self._own.scan()} if fresh else {}
        plan = steps(wanted, staged, own)
        self._check_room(sum(step.room for step in plan))
        for item in staged.values():
            if item.kind == "folder":
                (self._folder / item.path).chmod(0o700)  # until everything in it is there
        for item in superfluous(wanted, staged.values()):
            path = self._folder / item.path
            path.rmdir() if item.kind == "folder" else path.unlink()
        for item in wanted:
            if item.kind == "folder":
                (self._folder / item.path).mkdir(mode=0o700, exist_ok=True)
            elif item.kind == "link":
                self._make_link(self._folder / item.path, item.target)
        for step in plan:
            self._begin(step)
        return plan

    def write(self, step: Step, chunk: int, data: bytes) -> None:
        """One chunk of a file. The bytes were compared with the hash before."""
        fd = os.open(self._folder / step.item.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            at, view = chunk * CHUNK, memoryview(data)
            while view:
                written = os.pwrite(fd, view, at)
                at, view = at + written, view[written:]
        finally:
            os.close(fd)

    def finish(self, wanted: Manifest, plan: Iterable[Step]) -> str:
        """Rights and times as there, all of it on the disk; the digest of what was read again."""
        for step in plan:
            self._complete(step)
        folders = [item for item in wanted if item.kind == "folder"]
        for item in reversed(folders):
            path = self._folder / item.path
            sync_folder(path)
            path.chmod(item.mode)
        sync_folder(self._folder)
        return digest(self._scanner.scan(settle=True))

    def clear(self) -> None:
        """Give the room back."""
        remove(self._folder)

    def _check_room(self, needed: int) -> None:
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize
        if needed and needed + SPARE > free:
            raise OSError(errno.ENOSPC, f"the new state needs {needed + SPARE} bytes, not {free}", str(self._state))

    def _make_link(self, path: Path, target: str) -> None:
        if path.is_symlink():
            if os.readlink(path) == target:
                return
            path.unlink()
        path.symlink_to(target)

    def _begin(self, step: Step) -> None:
        path, own = self._folder / step.item.path, self._state / step.item.path
        match step.base:
            case "linked":
                os.link(own, path, follow_symlinks=False)
            case "own":
                shutil.copyfile(own, path, follow_symlinks=False)
                path.chmod(0o600)
            case "none":
                path.touch(mode=0o600)
            case "staged" if _changes(step, path):
                if path.stat().st_nlink > 1:  # what is written here must not be written to the own state
                    scratch = path.with_name(f"{path.name}.outrider")
                    shutil.copyfile(path, scratch)
                    scratch.replace(path)
                path.chmod(0o600)

    def _complete(self, step: Step) -> None:
        path, item = self._folder / step.item.path, step.item
        if step.base == "linked" or (step.base == "staged" and not _changes(step, path)):
            return
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, item.size)
            os.fchmod(fd, item.mode)
            os.utime(fd, ns=(item.mtime_ns, item.mtime_ns))
            os.fsync(fd)
        finally:
            os.close(fd)
        if step.base == "staged":
            self._scanner.amend(item.path, step.chunks)


def _changes(step: Step, path: Path) -> bool:
    """Whether a staged file is not yet as it should be."""
    found, item = path.stat(), step.item
    as_there = (found.st_size, found.st_mode & 0o777, found.st_mtime_ns) == (item.size, item.mode, item.mtime_ns)
    return bool(step.chunks) or not as_there
