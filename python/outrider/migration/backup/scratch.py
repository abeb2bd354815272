"""A backup restored where nobody uses it, and looked at: only then it counts as one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from outrider.errors import BackupDamaged
from outrider.migration.backup.model import Entry, Manifest
from outrider.migration.backup.objects import Counting, read
from outrider.migration.backup.tree import copied, put_back

# What a restored level says of itself beyond its bytes: what was checked, in words. Raises BackupDamaged.
SelfCheck = Callable[[Manifest, Path], tuple[str, ...]]


def restored_and_checked(manifest: Manifest, objects: Path, folder: Path, self_check: SelfCheck) -> tuple[str, ...]:
    """Restore below `folder`, compare with the manifest, look at it in the level's way. Raises BackupDamaged."""
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=folder) as made:
        scratch = Path(made)
        put_back(manifest.entries, scratch, lambda digest, of: read(objects, digest, of), scratch=True)
        _compare(manifest.entries, scratch)
        return (f"{manifest.count} files, {manifest.size} bytes", *self_check(manifest, scratch))


def _compare(entries: Iterable[Entry], scratch: Path) -> None:
    """By reading what was written, and not by what we believe to have written."""
    found, _ = copied(scratch, Counting(), passes=12)
    there = {entry.path: _bare(entry) for entry in found}
    for entry in entries:
        if there.pop(entry.path, None) != _bare(entry):
            raise BackupDamaged(f"{entry.path}: is otherwise after a restore\n  expected {_bare(entry)}")
    if there:
        raise BackupDamaged(f"{min(there)}: is there after a restore, and not in the manifest")


def _bare(entry: Entry) -> tuple[object, ...]:
    """Without what is not restored in scratch."""
    mode = 0 if entry.kind == "folder" else (entry.mode & 0o777) | (0o400 if entry.kind == "file" else 0)
    return (entry.path, entry.kind, mode, entry.size, entry.sha256, entry.target, entry.mtime_ns)
