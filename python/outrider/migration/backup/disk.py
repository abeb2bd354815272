"""Every effect on the folder of backups, one method each, so that a test can cut a run off before any of them."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from outrider.errors import BackupError

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class Disk:
    """Files 0600, folders 0700. Every method raises OSError."""

    def folder(self, path: Path) -> None:
        """Make it and those above it."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, path: Path, content: bytes) -> None:
        """A new file; one that is there is an error."""
        with open(path, "xb", opener=_private) as file:
            file.write(content)

    def sync(self, path: Path) -> None:
        """A file or a folder, to the disk."""
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            # What is read back then comes from the disk, and not from memory.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)

    def rename(self, path: Path, to: Path) -> None:
        """At once, in the place of what is there."""
        os.replace(path, to)

    def remove(self, path: Path) -> None:
        """A file or a whole folder; it is no error if there is none."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def room(self, path: Path) -> int:
        """Bytes that we may still write there."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize


def _private(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW, 0o600)


def said(error: OSError, where: Path) -> BackupError:
    """For people. `where`: if the error does not say."""
    hint = "make room there, then run it again" if error.errno in _FULL else ""
    return BackupError(f"{error.filename or where}: {error.strerror or error}", hint=hint)
