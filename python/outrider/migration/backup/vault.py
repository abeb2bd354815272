"""The folder of a host's backups: what lies in it has a final name only when it is whole and was proved by a restore.

objects/ab/abcd...      content, by its SHA-256
ID/manifest.json        what one backup holds, with a checksum
ID/proof.json           that it was restored once; removed when `verify` finds it damaged
.new-*                  what a run is making; a run that was cut off leaves it, and the next one removes it
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from outrider.errors import BackupDamaged, BackupError
from outrider.migration.backup.disk import Disk, said
from outrider.migration.backup.model import FORMAT, Backup, Manifest, Proof, identity
from outrider.migration.backup.objects import Objects, all_objects

ROOM = 1.2  # times what is to be written must be free
NEW, GONE = ".new-", ".gone-"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\.[a-z]+\.\d{8}T\d{6}Z\.([0-9a-f]{16})")


class _File(Struct, frozen=True):
    sha256: str
    manifest: Raw


class Stage:
    """One backup in the making, out of sight."""

    def __init__(self, folder: Path, objects: Path, disk: Disk) -> None:
        self.folder, self._disk = folder, disk
        self.objects = Objects(objects, folder, disk)
        disk.folder(folder / "backup")

    def describe(self, manifest: Manifest) -> str:
        """Write the manifest; the backup's name."""
        raw = msgspec.json.encode(manifest)
        digest = hashlib.sha256(raw).hexdigest()
        path = self.folder / "backup" / "manifest.json"
        self._disk.write(path, msgspec.json.encode(_File(digest, Raw(raw))))
        self._disk.sync(path)
        return identity(manifest.subject, manifest.created, digest)


class Vault:
    """Backups below `root`, which is ours alone. Raises BackupError, naming the backup and the file."""

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self.root, self.disk = root, disk or Disk()
        self.objects = root / "objects"

    @contextlib.contextmanager
    def alone(self, wait_s: float = 60.0) -> Iterator[None]:
        """Keep other runs out; what one that was cut off left is removed."""
        try:
            self.disk.folder(self.objects)
            lock = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise said(error, self.root) from error
        try:
            if os.fstat(lock).st_mode & 0o077:
                os.fchmod(lock, 0o700)
            self._lock(lock, time.monotonic() + wait_s)
            for left in (*self.root.glob(f"{NEW}*"), *self.root.glob(f"{GONE}*")):
                self.disk.remove(left)
            yield
        except OSError as error:
            raise said(error, self.root) from error
        finally:
            os.close(lock)

    def _lock(self, lock: int, until: float) -> None:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    hint = "wait until it has ended: `systemctl status outrider-backup`"
                    raise BackupError(f"{self.root}: another run is at work there", hint=hint) from None
                time.sleep(0.05)

    @contextlib.contextmanager
    def stage(self) -> Iterator[Stage]:
        """Where a backup is made; gone afterwards, kept or not."""
        folder = Path(tempfile.mkdtemp(prefix=NEW, dir=self.root))
        try:
            yield Stage(folder, self.objects, self.disk)
        finally:
            with contextlib.suppress(OSError):  # the next run does it then
                self.disk.remove(folder)

    def require_room(self, size: int) -> None:
        """Raises BackupError unless what is to be copied, and restored for the proof, fits with something to spare."""
        needed = int(2 * size * ROOM)
        if (free := self.disk.room(self.root)) < needed:
            raise BackupError(
                f"{self.root}: {free:,} bytes are free, {needed:,} are needed for a copy and its proof",
                hint="make room, let `outrider backup prune` keep less, or set outrider_backup_folder to a larger disk",
            )

    def keep(self, stage: Stage, proof: Proof) -> Backup:
        """Give it its final name, proof and all, at once."""
        path = stage.folder / "backup" / "proof.json"
        self.disk.write(path, msgspec.json.encode(proof))
        self.disk.sync(path)
        self.disk.sync(path.parent)
        self.disk.rename(path.parent, self.root / proof.id)
        self.disk.sync(self.root)
        return self.load(proof.id)

    def prove(self, proof: Proof) -> None:
        """Note that it was restored again."""
        new = self.root / proof.id / f"{NEW}proof.json"
        self.disk.remove(new)
        self.disk.write(new, msgspec.json.encode(proof))
        self.disk.sync(new)
        self.disk.rename(new, self.root / proof.id / "proof.json")
        self.disk.sync(self.root / proof.id)

    def disprove(self, id: str) -> None:
        """It does not count any more; its files stay, to be looked at."""
        self.disk.remove(self.root / id / "proof.json")

    def load(self, id: str) -> Backup:
        """One backup. Raises BackupError if its manifest is not the one that it was made with."""
        path = self.root / id / "manifest.json"
        try:
            raw = path.read_bytes()
            file = msgspec.json.decode(raw, type=_File)
            manifest = msgspec.json.decode(file.manifest, type=Manifest)
        except FileNotFoundError:
            hint = "`outrider backup list` shows those that are here"
            raise BackupError(f"no backup {id} in {self.root}", hint=hint) from None
        except OSError as error:
            raise said(error, path) from error
        except msgspec.MsgspecError as error:
            raise BackupDamaged(f"backup {id}: {path} is damaged: {error}", hint=_ANOTHER) from error
        self._check_manifest(id, path, file, manifest)
        return Backup(id, manifest, self._proof(id))

    def _check_manifest(self, id: str, path: Path, file: _File, manifest: Manifest) -> None:
        found = hashlib.sha256(bytes(file.manifest)).hexdigest()
        named = _ID.fullmatch(id)
        for what, expected in (("as it says itself", file.sha256), ("as its name says", named[1] if named else "")):
            if found[: len(expected) or None] != (expected or None):
                raise BackupDamaged(
                    f"backup {id}: {path} was changed after it was made, it is not {what}\n"
                    f"  expected sha256 {expected}\n  found    sha256 {found}",
                    hint=_ANOTHER,
                )
        if manifest.format != FORMAT:
            raise BackupError(f"backup {id}: format {manifest.format}, this program reads {FORMAT}")

    def _proof(self, id: str) -> Proof | None:
        try:
            proof = msgspec.json.decode((self.root / id / "proof.json").read_bytes(), type=Proof)
        except (OSError, msgspec.MsgspecError):
            return None
        return proof if proof.id == id else None

    def names(self) -> list[str]:
        """Of all backups, damaged ones too."""
        try:
            return sorted(path.name for path in self.root.iterdir() if _ID.fullmatch(path.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise said(error, self.root) from error

    def all(self, begins: str = "") -> tuple[list[Backup], list[str]]:
        """Those that can be read, oldest first, and what is wrong with the others. `begins`: only with such names."""
        found, wrong = [], []
        for name in (name for name in self.names() if name.startswith(begins)):
            try:
                found.append(self.load(name))
            except BackupError as error:
                wrong.append(error.message)
        return sorted(found, key=lambda backup: (backup.manifest.created, backup.id)), wrong

    def remove(self, id: str) -> None:
        """Out of sight first: what is half removed must not look like a backup."""
        gone = self.root / f"{GONE}{id}"
        self.disk.rename(self.root / id, gone)
        self.disk.sync(self.root)
        self.disk.remove(gone)

    def sweep(self) -> int:
        """Remove objects that no backup needs; how many. None while one cannot be read: who knows what it needs."""
        backups, wrong = self.all()
        if wrong:
            return 0
        needed = set[str]().union(*(backup.manifest.chunks for backup in backups))
        unneeded = [path for path in all_objects(self.objects) if path.name not in needed]
        for path in unneeded:
            self.disk.remove(path)
        return len(unneeded)


_ANOTHER = "it is not restored from; take another one: `outrider backup list`"
