"""The steps of a backup, in order; and those of looking at one again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from outrider.errors import BackupDamaged
from outrider.migration.backup.model import Backup, Manifest, Proof, Subject, content_digest, tool_version
from outrider.migration.backup.objects import Counting, Put
from outrider.migration.backup.scratch import SelfCheck, restored_and_checked
from outrider.migration.backup.sources import Source
from outrider.migration.backup.vault import Stage, Vault

# An unchanged source makes no new backup, but the one that there is must go on being restorable: bits rot.
PROVED_S = 20 * 3600.0
Clock = Callable[[], float]


class Made(Struct, frozen=True):
    """What a run did, or in check mode would do.

    new: a new backup; proved: the source is unchanged, and its backup was restored again; nothing: that was done lately
    """

    did: Literal["new", "proved", "nothing"]
    subject: Subject
    backup: Backup | None


def make(vault: Vault, source: Source, self_check: SelfCheck, clock: Clock = time.time) -> Made:
    """Back it up. Whatever ends this early leaves no backup behind. Raises BackupError, ConsulError."""
    with vault.alone():
        vault.require_room(source.size())
        with vault.stage() as stage:
            manifest = _collected(source, stage.objects, clock())
            stage.objects.keep()
            if before := unchanged(vault, manifest):
                if clock() - before.verified_at < PROVED_S:
                    return Made("nothing", manifest.subject, before)
                _prove_again(vault, stage, before, self_check, clock)
                return Made("proved", manifest.subject, vault.load(before.id))
            id = stage.describe(manifest)
            proof = _proof(vault, stage, manifest, id, self_check, clock)
            return Made("new", manifest.subject, vault.keep(stage, proof))


def foresee(vault: Vault, source: Source, clock: Clock = time.time) -> Made:
    """What `make` would do; nothing is written. Raises BackupError, ConsulError."""
    manifest = _collected(source, Counting(), clock())
    before = unchanged(vault, manifest)
    if not before:
        return Made("new", manifest.subject, None)
    late = clock() - before.verified_at >= PROVED_S
    return Made("proved" if late else "nothing", manifest.subject, before)


def verify(vault: Vault, id: str, self_check: SelfCheck, clock: Clock = time.time) -> Backup:
    """Restore it into scratch once more. Raises BackupError if it is damaged; it does not count any more then."""
    with vault.alone():
        backup = vault.load(id)
        with vault.stage() as stage:
            _prove_again(vault, stage, backup, self_check, clock)
        return vault.load(id)


def unchanged(vault: Vault, manifest: Manifest) -> Backup | None:
    """The last backup of the same, if it counts and the source is as it was then."""
    subject = manifest.subject
    backups, _ = vault.all(f"{subject.name}.{subject.level}.")
    same = [backup for backup in backups if backup.subject.same(subject) and backup.proof]
    return same[-1] if same and same[-1].manifest.source == manifest.source else None


def _collected(source: Source, put: Put, now: float) -> Manifest:
    entries, left_out = source.collect(put)
    files = [entry for entry in entries if entry.kind == "file"]
    return Manifest(
        subject=source.subject,
        created=now,
        entries=entries,
        size=sum(entry.size for entry in files),
        count=len(files),
        source=content_digest(entries),
        tool=tool_version(),
        left_out=left_out,
    )


def _proof(vault: Vault, stage: Stage, manifest: Manifest, id: str, self_check: SelfCheck, clock: Clock) -> Proof:
    began = time.monotonic()
    try:
        checks = restored_and_checked(manifest, vault.objects, stage.folder, self_check)
    except BackupDamaged as error:
        raise BackupDamaged(f"backup {id}: {error.message}", hint=error.hint or _DAMAGED) from error
    return Proof(id, clock(), round(time.monotonic() - began, 3), checks)


def _prove_again(vault: Vault, stage: Stage, backup: Backup, self_check: SelfCheck, clock: Clock) -> None:
    vault.require_room(backup.manifest.size // 2)
    try:
        proof = _proof(vault, stage, backup.manifest, backup.id, self_check, clock)
    except BackupDamaged:
        vault.disprove(backup.id)
        raise
    vault.prove(proof)


_DAMAGED = "it does not count as a backup: make a new one with `outrider backup create`, and look at the disk"
