"""What a backup is: a manifest of what it holds, and the proof that it was restored once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, get_args
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec
from msgspec import Struct

Level = Literal["configuration", "kv", "state", "snapshot"]
LEVELS: tuple[Level, ...] = get_args(Level)
FORMAT = 1
WHOLE_FLEET = "fleet"
# Whatever prints stays as it is, so that a manifest can be read; the rest, also of names that are no UTF-8, is escaped.
_PLAIN = "".join(chr(code) for code in range(33, 127) if chr(code) not in "%") + " "


class Subject(Struct, frozen=True):
    """Of what, and where. `agent` is empty for the whole fleet; `instance` is named where the level has several."""

    level: Level
    host: str
    fleet: str = ""
    agent: str = ""
    instance: str = ""
    version: str = ""

    @property
    def name(self) -> str:
        """For people and for names of files."""
        return self.instance or self.agent or WHOLE_FLEET

    def same(self, other: Subject) -> bool:
        """Whether both are backups of one thing, whatever version it was of."""
        return (self.level, self.host, self.agent, self.instance) == (
            other.level, other.host, other.agent, other.instance)  # fmt: skip


class Entry(Struct, frozen=True, omit_defaults=True):
    """One file, folder or symbolic link. The path of the top folder itself is ".".

    chunks: digests of its content in pieces, empty for a piece of zeros, which is a hole when restored
    owner: names or numbers of user and group
    """

    path: str
    kind: Literal["file", "folder", "link"]
    mode: int = 0
    mtime_ns: int = 0
    size: int = 0
    sha256: str = ""
    chunks: tuple[str, ...] = ()
    target: str = ""
    owner: tuple[str, str] = ("", "")

    def content(self) -> tuple[object, ...]:
        """What it is, without when and in which pieces it was written."""
        return (self.path, self.kind, self.mode, self.size, self.sha256, self.target, self.owner)


def content_digest(entries: Iterable[Entry]) -> str:
    """The same for the same content, whenever it was written."""
    return hashlib.sha256(msgspec.json.encode([entry.content() for entry in entries])).hexdigest()


class Manifest(Struct, frozen=True):
    """Everything about one backup, written once.

    created: Unix seconds; size, count: bytes and number of files; tool: the version that made it
    source: digest of what it holds, the same for two backups of an unchanged source
    left_out: what was there and is not kept: sockets, pipes, devices
    """

    subject: Subject
    created: float
    entries: tuple[Entry, ...]
    size: int
    count: int
    source: str
    tool: str
    left_out: tuple[str, ...] = ()
    format: int = FORMAT

    @property
    def chunks(self) -> set[str]:
        """The objects that it needs."""
        return {chunk for entry in self.entries for chunk in entry.chunks if chunk}


class Proof(Struct, frozen=True):
    """That it was restored into scratch and found whole. `checks`: what was looked at; `took_s`: the restore."""

    id: str
    verified_at: float
    took_s: float
    checks: tuple[str, ...]


class Backup(Struct, frozen=True):
    """One backup of this host. `proof` is None when it does not count: `verify` found it damaged."""

    id: str
    manifest: Manifest
    proof: Proof | None

    @property
    def subject(self) -> Subject:
        """Of what."""
        return self.manifest.subject

    @property
    def verified_at(self) -> float:
        """Unix seconds of the last proof, 0 if there is none."""
        return self.proof.verified_at if self.proof else 0.0


class Row(Struct, frozen=True):
    """A backup for people and programs: everything but the list of its files. `verified_at`: 0 if it does not count."""

    id: str
    level: Level
    agent: str
    instance: str
    host: str
    version: str
    created: float
    verified_at: float
    size: int
    count: int
    checks: tuple[str, ...]
    left_out: tuple[str, ...]
    tool: str


def row_of(backup: Backup) -> Row:
    """Of a backup."""
    manifest, subject = backup.manifest, backup.subject
    return Row(
        backup.id,
        subject.level,
        subject.agent,
        subject.instance,
        subject.host,
        subject.version,
        manifest.created,
        backup.verified_at,
        manifest.size,
        manifest.count,
        backup.proof.checks if backup.proof else (),
        manifest.left_out,
        manifest.tool,
    )


def identity(subject: Subject, created: float, digest: str) -> str:
    """Name of a backup. It carries the digest of its manifest, so that who changes one must rename it."""
    stamp = datetime.fromtimestamp(created, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{subject.name}.{subject.level}.{stamp}.{digest[:16]}"


def written(name: bytes) -> str:
    """A file's name as a manifest has it."""
    return quote_from_bytes(name, safe=_PLAIN)


def on_disk(name: str) -> str:
    """The other way round, as the os module takes it."""
    return os.fsdecode(unquote_to_bytes(name))


def tool_version() -> str:
    """Of this program."""
    try:
        return f"outrider {version('outrider')}"
    except PackageNotFoundError:
        return "outrider (not installed)"
