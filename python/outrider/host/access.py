"""Files that one other user may use: the owner of a file sets its access list without any privilege.

So an unprivileged shim hands a file to an agent of another user, and nobody else, though it may not change the owner.
"""

from __future__ import annotations

import errno
import os
import pwd
import struct
from pathlib import Path

from outrider.errors import HostError

READ, WRITE, PASS = 4, 2, 1
ATTRIBUTE = "system.posix_acl_access"
VERSION = struct.pack("<I", 2)
OWNER, USER, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
NOBODY = 0xFFFFFFFF  # the id of the entries that name none


def access_list(uid: int, rights: int, owner: int = READ | WRITE, other: int = 0) -> bytes:
    """As Linux keeps it: `rights` for that user, and for anybody else nothing but `other`."""
    entries = ((OWNER, owner, NOBODY), (USER, rights, uid), (GROUP, 0, NOBODY), (MASK, rights, NOBODY))
    return VERSION + b"".join(struct.pack("<HHI", *entry) for entry in (*entries, (OTHER, other, NOBODY)))


def user_id(user: str) -> int:
    """The number of a system user, given by its name or number. Raises HostError if there is none."""
    try:
        return int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
    except KeyError:
        raise HostError(
            f"the system user {user} does not exist", hint="the role `agents` makes it: run site.yml"
        ) from None


def grant(path: Path, uid: int, rights: int) -> None:
    """Let that user, and no other but ourselves, use the file. Raises HostError, or OSError if it is not ours."""
    if uid in (0, os.geteuid()):  # may already
        path.chmod(0o600)
        return
    _set_access(path, uid, access_list(uid, rights))


def grant_folder(path: Path, uid: int) -> None:
    """Let that user make files in our folder, which others only pass through. Raises as `grant` does."""
    everything = READ | WRITE | PASS
    _set_access(path, uid, access_list(uid, everything, owner=everything, other=PASS))


def _set_access(path: Path, uid: int, rights: bytes) -> None:
    try:
        os.setxattr(path, ATTRIBUTE, rights, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        raise HostError(
            f"{path}: its file system keeps no access lists, so it cannot be given to user {uid}",
            hint="mount it with the option `acl`, or use ext4, xfs, btrfs or tmpfs",
        ) from error


def passable_folder(path: Path) -> None:
    """Make the folder if it is not there; anybody may pass through ours, but only we list it. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid == os.geteuid() and found.st_mode & 0o011 != 0o011:
        path.chmod(found.st_mode & 0o777 | 0o011)
