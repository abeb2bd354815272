"""How much of an agent differs between two versions: its documents, and the files of its code, none of which is run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from outrider.host.packing import LEFT_OUT, LEFT_OUT_SUFFIXES
from outrider.migration.risk.source import MOST_FILES
from outrider.registry.layout import AgentDoc


class Change(Struct, frozen=True):
    """`lines`: added and removed ones; `files`: files that differ; `opaque`: those of them without lines to count."""

    lines: int
    files: int
    opaque: tuple[str, ...] = ()


def configured(old: AgentDoc, new: AgentDoc) -> Change:
    """What differs in what the fleet file says of it, as if that were one file with a line for each value."""
    was, now = (Counter(msgspec.json.format(msgspec.json.encode(doc.agent)).splitlines()) for doc in (old, new))
    lines = (was - now).total() + (now - was).total()
    return Change(lines, 1 if lines else 0)


def compare(old: Path, new: Path) -> Change:
    """What differs. A line that only moved does not. Raises OSError, or ValueError for far too many files."""
    before, after = dict(_files(old)), dict(_files(new))
    lines, files = 0, 0
    opaque = []
    for name in sorted(before.keys() | after.keys()):
        one, other = _content(before.get(name)), _content(after.get(name))
        if one == other and (name in before) == (name in after):
            continue
        files += 1
        if b"\0" in one or b"\0" in other:
            opaque.append(name)
            continue
        was, now = Counter(one.splitlines()), Counter(other.splitlines())
        lines += (was - now).total() + (now - was).total()
    return Change(lines, files, tuple(opaque))


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    if root.is_file():
        yield root.name, root
        return
    count = 0
    for place, folders, names in os.walk(root, onerror=_refuse):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        for name in sorted(names):
            if name.endswith(LEFT_OUT_SUFFIXES):
                continue
            count += 1
            if count > MOST_FILES:
                raise ValueError(f"{root}: more than {MOST_FILES:,} files; name the agent's own folder")
            yield Path(place, name).relative_to(root).as_posix(), Path(place, name)


def _refuse(error: OSError) -> None:
    raise error


def _content(file: Path | None) -> bytes:
    """Of a link where it leads: what lies there need not be the agent's."""
    if file is None:
        return b""
    return os.fsencode(os.readlink(file)) if file.is_symlink() else file.read_bytes()
