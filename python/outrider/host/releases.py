"""An agent's code on a host, as folders named by the checksum of what they were unpacked from.

Releases lie beside one another, so a rollback is a start from another folder. A release is visible complete or
not at all: it is unpacked beside its place and renamed into it.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from outrider.errors import ReleaseError
from outrider.host.checksums import check_digest
from outrider.host.packing import Packed, pack

__all__ = ["Packed", "install", "pack", "prune"]

HIDDEN = ".incoming-"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def install(archive: Path, digest: str, releases_dir: Path) -> Path:
    """Unpack a packed release (tar or wheel) and return its folder; one that is there already is used as it is.

    Raises ReleaseError if the archive has another checksum, holds what does not belong in a release, or cannot be
    written.
    """
    if not _DIGEST.fullmatch(digest):
        raise ReleaseError(f"release {digest!r}: not a SHA-256 checksum")
    place = releases_dir / digest
    if place.is_dir():
        return place
    scratch = None
    try:
        releases_dir.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=HIDDEN, dir=releases_dir))
        check_digest(archive, digest)
        _unpack(archive, scratch)
        scratch.chmod(0o755)
        _sync(scratch)
        _rename(scratch, place)
        _sync_folder(releases_dir)
    except OSError as error:
        where = error.filename or place
        raise ReleaseError(f"release {digest[:12]}: {where}: {error.strerror or error}") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return place


def prune(releases_dir: Path, keep: set[str]) -> list[str]:
    """Remove all releases but `keep`, and what interrupted installs left. Returns the removed digests."""
    removed = []
    for folder in sorted(releases_dir.glob("*")) if releases_dir.is_dir() else []:
        left_over = folder.name.startswith(HIDDEN)
        if not left_over and (folder.name in keep or not _DIGEST.fullmatch(folder.name)):
            continue
        if not left_over:
            # Out of sight first: a release that is half removed must not look like one.
            hidden = folder.with_name(f"{HIDDEN}{folder.name}")
            shutil.rmtree(hidden, ignore_errors=True)
            folder = folder.rename(hidden)
            removed.append(folder.name.removeprefix(HIDDEN))
        shutil.rmtree(folder, ignore_errors=True)
    return removed


def _unpack(archive: Path, folder: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, folder)
        else:
            _untar(archive, folder)
            _check_links(folder, archive)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise ReleaseError(f"{archive}: cannot be unpacked: {error}") from error


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            path = _inside(folder, member.name, archive)
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.issym():
                path.symlink_to(member.linkname)
            elif member.isfile() and (content := tar.extractfile(member)):
                with open(path, "xb") as file:
                    shutil.copyfileobj(content, file)
                path.chmod(0o755 if member.mode & 0o111 else 0o644)
            else:
                raise ReleaseError(f"{archive}: {member.name}: neither a file, a folder nor a symbolic link")


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as wheel:
        for member in wheel.infolist():
            path = _inside(folder, member.filename, archive)
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with wheel.open(member) as content, open(path, "xb") as file:
                shutil.copyfileobj(content, file)
            path.chmod(0o755 if (member.external_attr >> 16) & 0o111 else 0o644)


def _inside(folder: Path, name: str, archive: Path) -> Path:
    """Where a member goes. Raises ReleaseError for a name that leads out, also through a link unpacked before."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise ReleaseError(f"{archive}: {name!r}: leads out of the release")
    path = folder.joinpath(*parts)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise ReleaseError(f"{archive}: {name!r}: leads out of the release through a link")
    return path


def _check_links(folder: Path, archive: Path) -> None:
    """Where each link leads is known only when all are there: one may pass through another."""
    top = folder.resolve()
    for root, folders, files in os.walk(folder):
        for path in (Path(root, name) for name in (*folders, *files)):
            if not path.is_symlink():
                continue
            target = os.readlink(path)
            try:
                inside = not target.startswith("/") and path.resolve().is_relative_to(top)
            except RuntimeError:  # links in a circle lead nowhere
                inside = True
            if not inside:
                name = path.relative_to(folder)
                raise ReleaseError(f"{archive}: {str(name)!r}: a link out of the release, to {target!r}")


def _rename(scratch: Path, place: Path) -> None:
    try:
        scratch.rename(place)
    except OSError:
        if not place.is_dir():  # another run was quicker, with the very same content
            raise


def _sync(folder: Path) -> None:
    """Bring it to the disk, so that after a power cut what is there is whole."""
    for root, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(root, name)
            if not os.path.islink(path):
                _sync_path(path, os.O_RDONLY)
        _sync_folder(Path(root))


def _sync_folder(folder: Path) -> None:
    _sync_path(str(folder), os.O_RDONLY | os.O_DIRECTORY)


def _sync_path(path: str, flags: int) -> None:
    fd = os.open(path, flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
