"""Whatever ends a run, what has a final name is a whole backup that was proved, and the next run goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from full_disk import full_disk
from outrider.errors import BackupError
from outrider.migration.backup import tree
from outrider.migration.backup.checks import self_check
from outrider.migration.backup.disk import Disk
from outrider.migration.backup.making import verify
from unit.migration.backup.scene import Scene

EFFECTS = ("folder", "write", "sync", "rename", "remove")


class Crash(BaseException):
    """The process is gone: nothing that is in its `finally` has an effect on the disk any more."""


class CutOff(Disk):
    """Ends the run before an effect; with `error` that effect fails instead, and the run may clean up."""

    def __init__(self, before: int, error: OSError | None = None) -> None:
        self.left, self.error = before, error
        self.done = 0

    def __getattribute__(self, name: str) -> Any:
        if name in EFFECTS:
            self._count()
        return super().__getattribute__(name)

    def _count(self) -> None:
        self.done += 1
        if self.done > self.left and self.error is None:
            raise Crash
        if self.done == self.left + 1 and self.error is not None:
            raise self.error


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes to the state here, so it need not be waited for."""
    monkeypatch.setattr(tree, "TICK_NS", 0)


def small(scene: Scene) -> None:
    (scene.state / "below").mkdir()
    (scene.state / "below" / "other").write_text("other")
    (scene.state / "notes").write_text("notes")


def change(scene: Scene, step: int) -> None:
    """So that each run has as much to write as the first."""
    for path in (scene.state / "notes", scene.state / "below" / "other"):
        path.write_text(f"{path.name} before step {step}")


def effects(scene: Scene) -> int:
    disk = CutOff(10**9)
    scene.make(disk)
    return disk.done


@pytest.fixture
def steps(tmp_path_factory: pytest.TempPathFactory) -> int:
    whole = Scene(tmp_path_factory.mktemp("whole"))
    small(whole)
    return effects(whole)


def left_behind(scene: Scene) -> list[str]:
    return [path.name for path in scene.vault.root.glob(".*")]


def whole(scene: Scene) -> list[str]:
    """Names of the backups that are there. Each counts, and the last can be restored."""
    names = scene.vault.names()
    assert all(scene.vault.load(name).proof for name in names)
    if names:
        verify(scene.vault, names[-1], self_check(None), lambda: scene.now)
    return names


def test_a_kill_before_any_effect_leaves_no_half_backup(scene: Scene, steps: int) -> None:
    small(scene)
    assert steps > 20
    kept = 0
    for step in range(steps):
        change(scene, step)
        before = whole(scene)
        scene.now += 60
        with pytest.raises(Crash):
            scene.make(CutOff(step))
        after = whole(scene)
        assert len(after) - len(before) in (0, 1)
        kept += len(after) - len(before)
        assert scene.make().did == ("new" if after == before else "nothing")
        assert left_behind(scene) == []
    assert 0 < kept < steps / 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_of_any_effect_leaves_no_half_backup(scene: Scene, steps: int, code: int) -> None:
    small(scene)
    for step in range(steps):
        change(scene, step)
        before = whole(scene)
        scene.now += 60
        with contextlib.suppress(BackupError):  # what is removed at the end may stay: the backup is there by then
            scene.make(CutOff(step, OSError(code, os.strerror(code))))
        after = whole(scene)
        assert len(after) - len(before) in (0, 1)
        scene.make()
        assert left_behind(scene) == []


def test_a_kill_while_a_backup_is_proved_again_leaves_it_proved(scene: Scene) -> None:
    small(scene)
    id = scene.made()
    first = scene.vault.load(id).verified_at
    scene.now += 86400
    for step in range(40):
        try:
            scene.make(CutOff(step))
        except Crash:
            assert scene.vault.load(id).verified_at in (first, scene.now)
        else:
            break
    assert scene.vault.load(id).verified_at == scene.now


def test_a_kill_while_one_is_removed_leaves_a_whole_one_or_none(scene: Scene) -> None:
    small(scene)
    for step in range(4):
        (scene.state / "notes").write_text(str(step))
        scene.now += 60
        id = scene.made()
        scene.vault.disk = CutOff(step)
        with contextlib.suppress(Crash):
            scene.vault.remove(id)
        scene.vault.disk = Disk()
        if id in whole(scene):
            scene.vault.remove(id)
    with scene.vault.alone():
        pass
    assert left_behind(scene) == []


def test_a_disk_that_takes_no_more(scene: Scene) -> None:
    small(scene)
    (scene.state / "large").write_bytes(b"x" * 100_000)
    with full_disk(50_000), pytest.raises(BackupError, match="File too large") as refusal:
        scene.make()
    assert "make room" in refusal.value.hint
    assert whole(scene) == []
    assert left_behind(scene) == []
    assert scene.make().did == "new"


def test_room_is_asked_for_before_anything_is_written(scene: Scene) -> None:
    class Small(Disk):
        def room(self, path: Path) -> int:
            return 239_000

    small(scene)
    (scene.state / "large").write_bytes(b"x" * 100_000)
    with pytest.raises(BackupError, match="239,000 bytes are free") as refusal:
        scene.make(Small())
    assert "outrider_backup_folder" in refusal.value.hint
    assert list(scene.vault.objects.iterdir()) == []


def test_only_the_owner_reads_backups(scene: Scene) -> None:
    small(scene)
    os.umask(os.umask(0o022))
    scene.made()
    for path in (scene.vault.root, *scene.vault.root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_two_runs_at_once_keep_apart(scene: Scene) -> None:
    with scene.vault.alone(), pytest.raises(BackupError, match="another run is at work"), scene.vault.alone(0.1):
        pass
