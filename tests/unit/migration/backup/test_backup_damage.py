"""A backup that is not what it was is refused, and the refusal names it, the file, what was expected and found."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from pathlib import Path

import msgspec
import pytest

from outrider.errors import BackupDamaged, BackupError
from outrider.migration.backup.checks import self_check
from outrider.migration.backup.making import verify
from outrider.migration.backup.restoring import into_folder, into_state
from unit.migration.backup.scene import Scene


def refused(scene: Scene, id: str) -> str:
    """It is refused by `verify`, does not count any more, and is not restored from. What is said."""
    with pytest.raises(BackupDamaged) as damaged:
        verify(scene.vault, id, self_check(None))
    assert id in damaged.value.message
    assert damaged.value.hint
    backups, wrong = scene.vault.all()
    assert wrong or not backups[0].proof
    (scene.state / "notes").write_text("in use")
    for backup in backups:
        with pytest.raises(BackupDamaged, match=re.escape(id)):
            into_state(scene.vault, backup, scene.state, lambda: False)
        assert (scene.state / "notes").read_text() == "in use"
        assert sorted(path.name for path in scene.state.parent.iterdir()) == ["A-1"]
        with pytest.raises(BackupDamaged, match=re.escape(id)):
            into_folder(scene.vault, backup, scene.folder / "to")
        assert not (scene.folder / "to").exists()
    return damaged.value.message


@pytest.fixture
def backup(scene: Scene) -> str:
    scene.fill()
    return scene.made()


def test_a_flipped_byte(scene: Scene, backup: str) -> None:
    path = scene.object_of(b"one")
    path.write_bytes(b"ona")
    said = refused(scene, backup)
    assert f"backup {backup}: notes: its content {path} is damaged" in said
    assert f"expected sha256 {hashlib.sha256(b'one').hexdigest()}" in said
    assert f"found    sha256 {hashlib.sha256(b'ona').hexdigest()}, 3 bytes" in said


def test_a_truncated_object(scene: Scene, backup: str) -> None:
    scene.object_of(b"one").write_bytes(b"on")
    assert ", 2 bytes" in refused(scene, backup)


def test_a_lost_object(scene: Scene, backup: str) -> None:
    scene.object_of(b"one").unlink()
    assert "notes: its content" in refused(scene, backup)


def test_an_object_that_became_a_link(scene: Scene, backup: str, tmp_path: Path) -> None:
    path = scene.object_of(b"one")
    (tmp_path / "other").write_bytes(b"one")
    path.unlink()
    path.symlink_to(tmp_path / "other")
    assert "notes: its content" in refused(scene, backup)


def test_a_changed_manifest(scene: Scene, backup: str) -> None:
    path = scene.vault.root / backup / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"run.sh"', b'"run.py"'))
    assert f"{path} was changed after it was made, it is not as it says itself" in refused(scene, backup)


def test_a_changed_manifest_with_a_right_checksum(scene: Scene, backup: str) -> None:
    """Its name carries the checksum too, and the cluster knows the name."""
    path = scene.vault.root / backup / "manifest.json"
    manifest = msgspec.json.encode(msgspec.json.decode(path.read_bytes())["manifest"] | {"tool": "mine"})
    digest = hashlib.sha256(manifest).hexdigest()
    path.write_bytes(b'{"sha256":"%s","manifest":%s}' % (digest.encode(), manifest))
    assert "it is not as its name says" in refused(scene, backup)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"sha256":"", "manifest":{}}'])
def test_a_manifest_that_is_none(scene: Scene, backup: str, content: bytes) -> None:
    (scene.vault.root / backup / "manifest.json").write_bytes(content)
    assert str(scene.vault.root / backup / "manifest.json") in refused(scene, backup)


def test_a_lost_manifest(scene: Scene, backup: str) -> None:
    (scene.vault.root / backup / "manifest.json").unlink()
    with pytest.raises(BackupError, match=f"no backup {backup}"):
        verify(scene.vault, backup, self_check(None))


def test_a_proof_of_another_does_not_count(scene: Scene, backup: str) -> None:
    path = scene.vault.root / backup / "proof.json"
    path.write_bytes(path.read_bytes().replace(b"A-1.state", b"A-2.state"))
    assert scene.vault.load(backup).proof is None


def test_a_path_that_leads_out_is_refused(scene: Scene, backup: str) -> None:
    found = scene.vault.load(backup)
    entries = tuple(
        msgspec.structs.replace(entry, path="../notes") if entry.path == "notes" else entry
        for entry in found.manifest.entries
    )
    led = msgspec.structs.replace(found, manifest=msgspec.structs.replace(found.manifest, entries=entries))
    with pytest.raises(BackupDamaged, match=r"'\.\./notes': leads out of the backup"):
        into_folder(scene.vault, led, scene.folder / "to")


def test_a_database_that_sqlite_cannot_read_is_no_backup(scene: Scene) -> None:
    scene.fill()
    with sqlite3.connect(scene.state / "memory.db") as database:
        database.executemany("INSERT INTO said VALUES (?)", [("x" * 500,)] * 100)
    database.close()
    whole = (scene.state / "memory.db").read_bytes()
    (scene.state / "memory.db").write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(BackupDamaged, match=r"memory\.db: SQLite finds it damaged"):
        scene.make()
    assert scene.vault.names() == []


def test_the_next_backup_mends_a_rotten_object(scene: Scene, backup: str) -> None:
    scene.object_of(b"one").write_bytes(b"ona")
    (scene.state / "more").write_text("more")
    scene.now += 60
    made = scene.make()
    assert made.did == "new"
    assert verify(scene.vault, backup, self_check(None)).proof
    assert made.backup
    assert verify(scene.vault, made.backup.id, self_check(None)).proof


def test_want_of_consuls_program_does_not_make_a_backup_damaged(scene: Scene, backup: str) -> None:
    def check(*_: object) -> tuple[str, ...]:
        raise BackupError("Consul's program is not on this host")

    with pytest.raises(BackupError, match="not on this host"):
        verify(scene.vault, backup, check)
    assert scene.vault.load(backup).proof
