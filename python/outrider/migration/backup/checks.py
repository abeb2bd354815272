"""What is looked at in a restored backup beyond its bytes: whether its owner could start from it."""

from __future__ import annotations

import glob
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import msgspec

from outrider.errors import BackupDamaged
from outrider.host.supervisor import Launch
from outrider.migration.backup.keys import read_keys
from outrider.migration.backup.model import Manifest, on_disk
from outrider.migration.backup.scratch import SelfCheck
from outrider.migration.backup.scratch_consul import keys_come_back, snapshot_comes_back
from outrider.migration.backup.sources import AGENT, KEYS, PLACED, SNAPSHOT
from outrider.registry.layout import FLEET, PLACEMENT, AgentDoc, PlacementDoc

_SQLITE = b"SQLite format 3\0"
_KEYS: Mapping[str, type] = {FLEET: AgentDoc, PLACEMENT: PlacementDoc}
_FILES: Mapping[str, type] = {AGENT: AgentDoc, PLACED: PlacementDoc}


def self_check(program: Path | None) -> SelfCheck:
    """The check of each level. `program`: Consul's, which the levels of Consul whole need."""

    def check(manifest: Manifest, scratch: Path) -> tuple[str, ...]:
        match manifest.subject.level:
            case "state":
                return databases_are_whole(manifest, scratch)
            case "configuration":
                return documents_are_readable(manifest, scratch)
            case "kv":
                return keys_are_readable(manifest, scratch, program)
            case "snapshot":
                return snapshot_comes_back(scratch / SNAPSHOT, program, scratch.parent)

    return check


def databases_are_whole(manifest: Manifest, scratch: Path) -> tuple[str, ...]:
    """SQLite opens each of its databases, takes back what was not committed, and looks through it."""
    paths = {entry.path: scratch / on_disk(entry.path) for entry in manifest.entries if entry.kind == "file"}
    databases = {name: path for name, path in paths.items() if _is_sqlite(path)}  # closing one removes its log
    for name, path in databases.items():
        try:
            for part in (path, *path.parent.glob(f"{glob.escape(path.name)}-*")):
                part.chmod(0o600)  # its log, too, is taken in
            with sqlite3.connect(path) as database:
                said = [str(row[0]) for row in database.execute("PRAGMA quick_check(1)")]
            database.close()
        except sqlite3.Error as error:
            said = [str(error)]
        if said != ["ok"]:
            raise BackupDamaged(f"{name}: SQLite finds it damaged: {'; '.join(said)}")
    return (f"{len(databases)} SQLite databases",) if databases else ()


def _is_sqlite(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def documents_are_readable(manifest: Manifest, scratch: Path) -> tuple[str, ...]:
    """Each is what its name says."""
    found = [entry.path for entry in manifest.entries if entry.kind == "file"]
    for path in found:
        _readable(path, (scratch / path).read_bytes(), _FILES.get(path, Launch))
    return (f"{len(found)} documents",)


def keys_are_readable(manifest: Manifest, scratch: Path, program: Path | None) -> tuple[str, ...]:
    """Documents are documents; the whole fleet's keys are written into a scratch Consul, too, and read from it."""
    keys = read_keys(scratch / KEYS)
    for key in keys:
        if kind := next((kind for prefix, kind in _KEYS.items() if key.key.startswith(prefix)), None):
            _readable(key.key, key.content, kind)
    said: tuple[str, ...] = (f"{len(keys)} keys",)
    if not manifest.subject.agent:
        said += keys_come_back({key.key: key.content for key in keys}, program, scratch.parent)
    return said


def _readable(what: str, content: bytes, kind: type) -> None:
    try:
        msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise BackupDamaged(f"{what}: is no document of ours: {error}") from error
