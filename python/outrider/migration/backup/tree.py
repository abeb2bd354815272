"""A folder, copied as it was at one instant though its owner goes on writing, and put back.

Everything is looked at again until two passes in a row find the same: then nothing changed between them, and the copy
is the folder as it was there. What a program that is killed at that instant would find is what a restore gives it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from outrider.errors import BackupDamaged, BackupError
from outrider.migration.backup.model import Entry, on_disk, written
from outrider.migration.backup.objects import PIECE, Put

PASSES = 7
# The kernel stamps changes by its tick: a second write within one leaves the same time.
TICK_NS = 20_000_000
Signature = tuple[int, ...]


class Look(Struct, frozen=True):
    """One thing as a pass found it. `settled`: another pass that finds the same signature need not read it again."""

    signature: Signature
    entry: Entry | None
    settled: bool


Found = dict[bytes, Look]


def copied(
    top: Path, put: Put, *, passes: int = PASSES, now_ns: Callable[[], int] = time.time_ns
) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """The entries of a folder, and what was left out. Raises BackupError if it never rests, or cannot be read."""
    known: Found = {}
    for number in range(passes):
        try:
            found = _pass(top, put, known, now_ns)
        except OSError as error:
            where = os.fsdecode(error.filename) if error.filename else top
            raise BackupError(f"{where}: {error.strerror}") from error
        if found == known and all(look.settled for look in found.values()):
            return _sorted(found)
        restless = sorted(written(path) for path, look in found.items() if known.get(path) != look or not look.settled)
        known = found
        time.sleep(TICK_NS / 1e9 * 2**number)
    some = ", ".join(restless[:5]) + (f" and {len(restless) - 5} more" if len(restless) > 5 else "")
    raise BackupError(
        f"{top}: changed each of {passes} times that it was copied: {some or 'what is gone by now'}",
        hint="stop the instance for the backup: `outrider stop INSTANCE`, then `outrider start INSTANCE`",
    )


def size_of(top: Path) -> int:
    """Bytes that its files take. Raises BackupError if it cannot be read."""
    try:
        return sum(min(look.st_size, look.st_blocks * 512) for _, _, look in _walk(top) if stat.S_ISREG(look.st_mode))
    except OSError as error:
        raise BackupError(f"{top}: {error.strerror}") from error


def _walk(top: Path) -> Iterator[tuple[int, bytes, os.stat_result]]:
    """A folder's descriptor, and path and kind of what lies in it; no link is followed, not one put there meanwhile."""
    above = os.fsencode(top)

    def refuse(error: OSError) -> None:
        if error.errno != errno.ENOENT:
            raise error

    for root, folders, files, fd in os.fwalk(above, onerror=refuse, follow_symlinks=False):
        below = os.path.relpath(root, above)
        if below == b".":
            yield fd, b".", os.fstat(fd)
        for name in sorted((*folders, *files)):
            with contextlib.suppress(FileNotFoundError):
                path = name if below == b"." else os.path.join(below, name)
                yield fd, path, os.stat(name, dir_fd=fd, follow_symlinks=False)


def _pass(top: Path, put: Put, known: Found, now_ns: Callable[[], int]) -> Found:
    found = {}
    for fd, path, seen in _walk(top):
        before = known.get(path)
        if before and before.settled and before.signature == _signature(seen):
            found[path] = before
            continue
        with contextlib.suppress(FileNotFoundError):  # gone meanwhile: the next pass will not see it
            found[path] = _look(fd, path, seen, put, now_ns())
    return found


def _look(fd: int, path: bytes, seen: os.stat_result, put: Put, began_ns: int) -> Look:
    name, plain = os.path.basename(path), written(path)
    if stat.S_ISREG(seen.st_mode):
        return _read(fd, name, plain, put, began_ns)
    entry = None
    if stat.S_ISDIR(seen.st_mode):
        entry = Entry(plain, "folder", stat.S_IMODE(seen.st_mode), seen.st_mtime_ns, owner=_owner(seen))
    elif stat.S_ISLNK(seen.st_mode):
        target = written(os.readlink(name, dir_fd=fd))
        entry = Entry(plain, "link", mtime_ns=seen.st_mtime_ns, target=target, owner=_owner(seen))
    return Look(_signature(seen), entry, _settled(seen, began_ns))


def _read(fd: int, name: bytes, plain: str, put: Put, began_ns: int) -> Look:
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd), "rb") as file:
        seen = os.fstat(file.fileno())
        digest, chunks, size = hashlib.sha256(), [], 0
        while piece := file.read(PIECE):
            digest.update(piece)
            chunks.append(put.put(piece))
            size += len(piece)
        after = os.fstat(file.fileno())
    entry = Entry(
        plain, "file", stat.S_IMODE(seen.st_mode), seen.st_mtime_ns,
        size=size, sha256=digest.hexdigest(), chunks=tuple(chunks), owner=_owner(seen),
    )  # fmt: skip
    quiet = _signature(seen) == _signature(after) and size == seen.st_size
    return Look(_signature(seen), entry, quiet and _settled(seen, began_ns))


def _signature(seen: os.stat_result) -> Signature:
    return (seen.st_dev, seen.st_ino, seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


def _settled(seen: os.stat_result, now_ns: int) -> bool:
    return abs(now_ns - seen.st_ctime_ns) > TICK_NS


def _owner(seen: os.stat_result) -> tuple[str, str]:
    import grp
    import pwd

    user, group = str(seen.st_uid), str(seen.st_gid)
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(seen.st_uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(seen.st_gid).gr_name
    return user, group


def _sorted(found: Found) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    entries = sorted((look.entry for look in found.values() if look.entry), key=lambda entry: entry.path)
    return tuple(entries), tuple(sorted(written(path) for path, look in found.items() if look.entry is None))


def put_back(entries: Iterable[Entry], to: Path, read: Callable[[str, str], bytes], *, scratch: bool = False) -> None:
    """Make the entries below `to`, an empty folder of ours. `read`: content of an object, for a named file.

    In `scratch` modes stay ours, so that it can be removed again, and owners too. Raises BackupDamaged, OSError.
    """
    entries = sorted(entries, key=lambda entry: entry.path)
    for entry in entries:
        path = _inside(to, entry)
        if entry.kind == "folder" and entry.path != ".":
            path.mkdir(mode=0o700)
        elif entry.kind == "file":
            _write(path, entry, read)
    for entry in entries:  # last, so that nothing is written through one
        if entry.kind == "link":
            os.symlink(on_disk(entry.target), _inside(to, entry))
    for entry in reversed(entries):  # what is deepest first: writing below a folder changes its time
        _finish(_inside(to, entry), entry, scratch=scratch)


def _inside(to: Path, entry: Entry) -> Path:
    parts = entry.path.split("/")
    if entry.path != "." and any(on_disk(part) in ("", ".", "..") for part in parts):
        raise BackupDamaged(f"{entry.path!r}: leads out of the backup")
    return to.joinpath(*(on_disk(part) for part in parts))


def _write(path: Path, entry: Entry, read: Callable[[str, str], bytes]) -> None:
    digest, size = hashlib.sha256(), 0
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600)) as file:
        for number, chunk in enumerate(entry.chunks):
            left = min(PIECE, entry.size - number * PIECE)
            piece = read(chunk, entry.path) if chunk else bytes(left)
            digest.update(piece)
            size += len(piece)
            file.write(piece) if chunk else file.seek(left, os.SEEK_CUR)
        file.truncate()
    if (size, digest.hexdigest()) != (entry.size, entry.sha256):
        raise BackupDamaged(
            f"{entry.path}: is not the file that was copied\n  expected {entry.size} bytes, sha256 {entry.sha256}\n"
            f"  found    {size} bytes, sha256 {digest.hexdigest()}"
        )


def _finish(path: Path, entry: Entry, *, scratch: bool) -> None:
    if not scratch and os.geteuid() == 0:
        uid, gid = _ids(entry.owner)
        os.chown(path, uid, gid, follow_symlinks=False)
    if entry.kind != "link":
        mode = (entry.mode & 0o777) | (0o700 if entry.kind == "folder" else 0o400)
        os.chmod(path, mode if scratch else entry.mode)
    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


def _ids(owner: tuple[str, str]) -> tuple[int, int]:
    """Numbers of user and group on this host, which may be others than where the copy was made; -1: left as it is."""
    import grp
    import pwd

    uid = gid = -1
    with contextlib.suppress(KeyError, ValueError):
        uid = int(owner[0]) if owner[0].isdigit() else pwd.getpwnam(owner[0]).pw_uid
    with contextlib.suppress(KeyError, ValueError):
        gid = int(owner[1]) if owner[1].isdigit() else grp.getgrnam(owner[1]).gr_gid
    return uid, gid
