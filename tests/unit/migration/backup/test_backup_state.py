"""An instance's state: unchanged makes no new backup, content is shared, nothing is replaced while it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from outrider.errors import BackupError
from outrider.host.state import KeptStore
from outrider.migration.backup import restoring
from outrider.migration.backup.checks import self_check
from outrider.migration.backup.desk import Desk, server_address
from outrider.migration.backup.making import PROVED_S, foresee, verify
from outrider.migration.backup.retention import Keep
from outrider.migration.backup.running import runs
from outrider.migration.backup.sources import StateSource
from unit.migration.backup.scene import DAY_S, Scene


@pytest.fixture
def desk(scene: Scene) -> Desk:
    scene.fill()
    return Desk(scene.config, clock=lambda: scene.now)


def written(scene: Scene) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in scene.vault.root.rglob("*")}


def test_unchanged_makes_no_new_one_but_is_proved_again_each_day(scene: Scene) -> None:
    scene.fill()
    id = scene.made()
    before = written(scene)
    assert scene.make().did == "nothing"
    (scene.state / "notes").touch()  # another time is no other content
    assert scene.make().did == "nothing"
    assert {path: when for path, when in written(scene).items() if path != scene.vault.root} == {
        path: when for path, when in before.items() if path != scene.vault.root}  # fmt: skip
    scene.now += PROVED_S
    again = scene.make()
    assert again.did == "proved"
    assert again.backup
    assert (again.backup.id, again.backup.verified_at) == (id, scene.now)


def test_check_mode_says_what_would_be_done_and_writes_nothing(scene: Scene) -> None:
    scene.fill()
    source = StateSource(scene.config, scene.kept)

    def would() -> str:
        before = written(scene) if scene.vault.root.exists() else {}
        did = foresee(scene.vault, source, lambda: scene.now).did
        assert (written(scene) if scene.vault.root.exists() else {}) == before
        return did

    assert would() == "new"
    scene.made()
    assert would() == "nothing"
    scene.now += DAY_S
    assert would() == "proved"
    (scene.state / "notes").chmod(0o600)
    assert would() == "new"


def test_backups_share_what_they_have_in_common(scene: Scene) -> None:
    scene.fill()
    scene.made()
    before = len(list(scene.vault.objects.rglob("*/*")))
    scene.now += 1
    (scene.state / "notes").write_text("two")
    scene.made()
    assert len(list(scene.vault.objects.rglob("*/*"))) == before + 1


def test_what_is_pruned_takes_no_shared_content_along(scene: Scene, desk: Desk) -> None:
    first = scene.made()
    (scene.state / "notes").write_text("two")
    scene.now += 100 * DAY_S
    second = scene.made()
    assert desk.prune(Keep(1, 0), check_mode=True).removed == (first,)
    assert scene.vault.names() == sorted([first, second])
    pruned = desk.prune(Keep(1, 0))
    assert (pruned.removed, pruned.objects) == ((first,), 1)
    assert scene.vault.names() == [second]
    assert verify(scene.vault, second, self_check(None)).proof


def test_nothing_is_swept_while_a_manifest_cannot_be_read(scene: Scene, desk: Desk) -> None:
    id = scene.made()
    (scene.vault.root / id / "manifest.json").write_bytes(b"{}")
    before = sorted(scene.vault.objects.rglob("*/*"))
    assert desk.prune(Keep()).objects == 0
    assert sorted(scene.vault.objects.rglob("*/*")) == before


def test_state_is_put_back_and_what_was_there_is_kept(scene: Scene, desk: Desk) -> None:
    scene.made()
    (scene.state / "notes").write_text("spoilt")
    (scene.state / "later").write_text("x")
    shown = desk.restore(desk.choose("A"), check_mode=True)
    assert (shown.changed, shown.into) == (True, str(scene.state))
    assert (scene.state / "notes").read_text() == "spoilt"
    restored = desk.restore(desk.choose("A"))
    assert (scene.state / "notes").read_text() == "one"
    assert not (scene.state / "later").exists()
    assert (Path(restored.kept) / "later").read_text() == "x"
    assert scene.make().did == "nothing"


def test_a_running_instance_keeps_its_state(scene: Scene, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "ENDING_S", 0.2)
    scene.made()
    environment = {**os.environ, "OUTRIDER_RUNTIME": str(scene.config.runtime_dir), "OUTRIDER_INSTANCE": "A-1"}
    program = "print('up', flush=True); import time; time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, start_new_session=True, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout
        process.stdout.readline()
        assert runs(scene.config, "A-1")
        assert not runs(scene.config, "A-2")
        with pytest.raises(BackupError, match="A-1 runs: its state is not replaced under it") as refusal:
            desk.restore(desk.choose("A"))
        assert "outrider stop A-1" in refusal.value.hint
        assert desk.restore(desk.choose("A"), check_mode=True).first == "outrider stop A-1"
        desk.restore(desk.choose("A"), scene.folder / "to")
        assert (scene.folder / "to" / "notes").read_text() == "one"
    finally:
        process.kill()
        process.communicate()
    assert not runs(scene.config, "A-1")


def test_a_folder_that_has_something_in_it_is_not_restored_into(scene: Scene, desk: Desk) -> None:
    scene.made()
    (scene.folder / "to").mkdir()
    (scene.folder / "to" / "mine").write_text("x")
    with pytest.raises(BackupError, match="not an empty folder"):
        desk.restore(desk.choose("A"), scene.folder / "to")
    assert [path.name for path in (scene.folder / "to").iterdir()] == ["mine"]


def test_without_a_state_folder_the_next_command_is_named(scene: Scene, desk: Desk) -> None:
    os.rename(scene.state, scene.state.with_name("gone"))
    outcome = desk.create("A", ["state"])
    assert "is not on this host" in outcome.failed[0].error
    assert "outrider status" in outcome.failed[0].hint


def test_an_instance_whose_name_leads_elsewhere_is_none_of_ours(scene: Scene, desk: Desk) -> None:
    """The shim's user writes what is kept of instances, and root reads it."""
    (scene.folder / "log").mkdir()
    placed = msgspec.structs.replace(scene.kept.placed, instance="../../log")
    doc = msgspec.structs.replace(scene.kept.doc, name="../A")
    for name, kept in (("B-1", {"placed": placed}), ("C-1", {"doc": doc})):
        path = scene.config.state_dir / "instances" / f"{name}.json"
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(scene.kept, **kept)))
    assert [done.name for done in desk.create("", ["state"]).done] == ["A-1"]


def test_the_token_for_management_goes_where_consuls_own_configuration_says(tmp_path: Path) -> None:
    file = tmp_path / "consul.json"
    assert server_address(file) is None
    for text in ("", "{}", "[]", '{"acl": {"tokens": {"agent": "a"}}}'):
        file.write_text(text)
        assert server_address(file) is None
    for name in ("master", "initial_management"):
        file.write_text(json.dumps({"ports": {"http": 8511}, "acl": {"tokens": {"agent": "a", name: "m"}}}))
        found = server_address(file)
        assert found
        assert (found.host, found.port, found.token) == ("127.0.0.1", 8511, "m")


def test_of_several_instances_one_is_to_be_named(scene: Scene, desk: Desk) -> None:
    placed = msgspec.structs.replace(scene.kept.placed, instance="A-2")
    KeptStore(scene.config.state_dir).save(msgspec.structs.replace(scene.kept, placed=placed))
    (scene.state.parent / "A-2").mkdir()
    assert len(desk.create("A", ["state"]).done) == 2
    with pytest.raises(BackupError, match="several instances: A-1, A-2"):
        desk.choose("A", "state")
    assert desk.choose("A-2").subject.instance == "A-2"


def test_an_unknown_name_is_refused_with_those_that_are_here(desk: Desk) -> None:
    with pytest.raises(BackupError, match="no agent or instance B") as refusal:
        desk.create("B")
    assert refusal.value.hint == "instances here: A-1"
