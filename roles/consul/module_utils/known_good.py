"""Copies of the files that a service last came up with: the way back when it does not come up with newer ones."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

LINK_BYTES = 1_000_000  # programs are replaced, never written into, so that a link to the old one keeps it


def keep(inputs: Iterable[str], folder: Path) -> None:
    """Make the present files the known good ones."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in map(Path, inputs):
        if path.exists() and not _same(path, _copy_of(path, folder)):
            _replace(path, _copy_of(path, folder), link=path.stat().st_size > LINK_BYTES)


def are_kept(inputs: Iterable[str], folder: Path) -> bool:
    """Whether the present files are the known good ones."""
    return all(_same(path, _copy_of(path, folder)) for path in map(Path, inputs) if path.exists())


def put_back(inputs: Iterable[str], folder: Path) -> list[str]:
    """Put the known good files in the place of those that differ. Returns what was put back."""
    changed = []
    for path in map(Path, inputs):
        copy = _copy_of(path, folder)
        if copy.exists() and not _same(path, copy):
            _replace(copy, path, link=copy.stat().st_size > LINK_BYTES)
            changed.append(str(path))
    return changed


def _copy_of(path: Path, folder: Path) -> Path:
    return folder / str(path).strip("/").replace("/", "%")


def _same(one: Path, other: Path) -> bool:
    if not (one.exists() and other.exists()):
        return False
    # Of a program its size and time are enough, so that nothing is read each time.
    return one.samefile(other) or filecmp.cmp(one, other, shallow=one.stat().st_size > LINK_BYTES)


def _replace(source: Path, dest: Path, link: bool) -> None:
    scratch = dest.with_name(f".{dest.name}.new")
    scratch.unlink(missing_ok=True)
    try:
        if not link:
            raise OSError
        os.link(source, scratch)
    except OSError:  # another file system
        scratch.touch(mode=0o600)
        shutil.copyfile(source, scratch)
        stat = source.stat()
        os.chown(scratch, stat.st_uid, stat.st_gid)
        shutil.copystat(source, scratch)
    scratch.replace(dest)
