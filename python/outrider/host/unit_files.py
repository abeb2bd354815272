"""The drop-ins of a host's instances as files: what differs from those wanted, and making it so."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct

from outrider.errors import HostError
from outrider.host.units import HEADER

NAME = "50-outrider.conf"


class Change(Struct, frozen=True):
    """One file that is to be written, or removed if `after` is None."""

    path: Path
    before: str | None
    after: str | None


def changes(folder: Path, wanted: Mapping[str, str]) -> list[Change]:
    """What differs in `folder` from `wanted`, instance to content. Only files with our header are removed."""
    paths = {folder / f"outrider-agent@{instance}.service.d" / NAME: text for instance, text in wanted.items()}
    try:
        there = {path: path.read_text() for path in folder.glob(f"outrider-agent@*.service.d/{NAME}")}
    except OSError as error:
        raise HostError(f"{error.filename}: {error.strerror}") from error
    stale = {path for path, text in there.items() if text.startswith(HEADER)} - paths.keys()
    found = [Change(path, there.get(path), text) for path, text in paths.items() if there.get(path) != text]
    return sorted([*found, *(Change(path, there[path], None) for path in stale)], key=lambda change: change.path)


def write(changes: Iterable[Change]) -> None:
    """Make every change. Each file is replaced at once; one run that is cut off is made good by the next."""
    try:
        for change in changes:
            _remove(change.path) if change.after is None else _write(change.path, change.after)
    except OSError as error:
        raise HostError(f"{error.filename}: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.parent.chmod(0o755)
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text)
    scratch.chmod(0o644)
    os.replace(scratch, path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody's own drop-in is in it
        path.parent.rmdir()
