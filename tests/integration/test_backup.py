"""Backups of documents and of Consul whole, made from a real Consul and put back into it after the damage."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from integration.conftest import ConsulServer
from outrider.errors import BackupDamaged, BackupError, ConsulConflict, ConsulDenied, Locked
from outrider.fleet.spec import Agent, Host
from outrider.host.config import Config, ConsulConfig
from outrider.host.state import Kept, KeptStore
from outrider.migration.backup import Desk, prove, restoring
from outrider.migration.backup.model import Level
from outrider.migration.backup.record import known_everywhere
from outrider.migration.backup.scratch_consul import scratch_consul
from outrider.registry.client import connect
from outrider.registry.kv import Change, get_doc, list_docs, put_docs
from outrider.registry.layout import (
    BACKUPS,
    FLEET,
    HOSTS,
    PLACEMENT,
    PUBLISHED,
    RUN_LOCK,
    AgentDoc,
    HostDoc,
    Placed,
    PlacementDoc,
)
from outrider.registry.lock import RunLock
from outrider.registry.published import Published

pytestmark = pytest.mark.integration
HIDDEN = "hunter2-is-no-password"


def doc(name: str, **agent: object) -> AgentDoc:
    return AgentDoc(name, "lab", msgspec.convert({"module": "x", **agent}, Agent), "v1")


def publish(server: ConsulServer) -> None:
    environment = {"API_KEY": HIDDEN, "MODE": "fast"}
    docs = [
        Change(FLEET + "A", doc("A", state=True, environment=environment, secrets={"TOKEN": "/etc/token"}), 0),
        Change(PLACEMENT + "A", PlacementDoc("A", (Placed("A-1", "h1", "v1"),)), 0),
        Change(PUBLISHED, Published(1), 0),  # in no backup: only a publication knows
        Change(FLEET + "B", doc("B"), 0),
        Change(PLACEMENT + "B", PlacementDoc("B", (Placed("B-1", "h2", "v1"),)), 0),
        Change(HOSTS + "h1", HostDoc(Host("h1")), 0),
    ]
    put_docs(server.client, docs)


def desk_of(server: ConsulServer, folder: Path) -> Desk:
    """The desk of host h1, which runs A-1."""
    consul = ConsulConfig(port=server.ports["http"])
    if server.address.token:
        (folder / "token").touch(mode=0o600)
        (folder / "token").write_text(server.address.token)
        consul = msgspec.structs.replace(consul, token_file=str(folder / "token"))
    config = Config("lab", "h1", folder / "run", folder / "state", folder / "log", consul=consul)
    found, _ = get_doc(server.client, FLEET + "A", AgentDoc)
    assert found
    KeptStore(config.state_dir).save(Kept(found, Placed("A-1", "h1", "v1"), {"main": 7000}))
    state = config.agent_state / "A-1"
    state.mkdir(parents=True)
    (state / "notes").write_text("kept")
    return Desk(config, program=server.binary)


@pytest.fixture
def desk(consul: ConsulServer, tmp_path: Path) -> Desk:
    publish(consul)
    return desk_of(consul, tmp_path)


def made(desk: Desk, name: str = "", *levels: Level) -> str:
    outcome = desk.create(name, levels)
    assert (outcome.failed, outcome.warnings) == ((), ())
    assert [done.did for done in outcome.done] == ["new"]
    assert outcome.done[0].backup
    return outcome.done[0].backup.id


def everything(server: ConsulServer) -> dict[str, object]:
    """The documents that say what should be."""
    return {
        prefix + name: document
        for prefix, kind in ((FLEET, AgentDoc), (PLACEMENT, PlacementDoc), (HOSTS, HostDoc))
        for name, (document, _) in list_docs(server.client, prefix, kind).docs.items()  # type: ignore[attr-defined]
    }


def test_a_whole_host_is_backed_up_and_the_cluster_knows(desk: Desk, consul: ConsulServer) -> None:
    outcome = desk.create()
    assert (outcome.failed, outcome.warnings) == ((), ())
    assert sorted((done.level, done.name) for done in outcome.done) == [
        ("configuration", "A"), ("kv", "fleet"), ("snapshot", "fleet"), ("state", "A-1")]  # fmt: skip
    known = {(k.agent, k.level): k for k in known_everywhere(consul.client)}
    assert set(known) == {("A", "configuration"), ("A", "state/A-1"), ("", "kv"), ("", "snapshot")}
    assert known["A", "state/A-1"].bytes == 4
    checks = {done.level: done.backup.checks for done in outcome.done if done.backup}
    assert checks["kv"][1:] == ("5 keys", "written into a scratch Consul and read from it")
    assert checks["snapshot"][-1] == "a scratch Consul has 2 agents of it"
    standing = prove(consul.client, "A", ("configuration", "kv", "state", "snapshot"))
    assert standing.proven
    assert standing.measure().value == 0
    assert standing.age_s is not None


def test_a_second_run_makes_nothing_new_and_writes_nothing(desk: Desk, consul: ConsulServer) -> None:
    desk.create("A")
    before = known_everywhere(consul.client), os.stat(desk.vault.root).st_mtime_ns
    index = consul.client.get(f"/v1/kv/{BACKUPS}", params={"recurse": ""}).index
    again = desk.create("A")
    assert [done.did for done in again.done] == ["nothing"] * 3
    assert known_everywhere(consul.client) == before[0]
    assert consul.client.get(f"/v1/kv/{BACKUPS}", params={"recurse": ""}).index == index


def test_lost_documents_come_back_and_others_are_left(desk: Desk, consul: ConsulServer) -> None:
    before = everything(consul)
    backup = desk.choose(made(desk, "", "kv"))
    consul.client.delete(f"/v1/kv/{FLEET}", params={"recurse": ""})
    _, index = get_doc(consul.client, PLACEMENT + "A", PlacementDoc)
    put_docs(consul.client, [Change(PLACEMENT + "A", PlacementDoc("A"), index), Change(FLEET + "New", doc("New"), 0)])
    shown = desk.restore(backup, check_mode=True)
    assert [diff.after_header.split()[0] for diff in shown.diff] == [FLEET + "A", FLEET + "B", PLACEMENT + "A"]
    assert "hunter2" not in str(shown.diff)
    assert "A-1" in shown.diff[2].after
    assert FLEET + "New" in shown.left_alone
    assert everything(consul) != before
    assert desk.restore(backup).changed
    after = everything(consul)
    assert after.pop(FLEET + "New")
    assert after == before
    assert not desk.restore(backup).changed


def test_one_agents_documents_come_back_and_no_others(desk: Desk, consul: ConsulServer) -> None:
    before = everything(consul)
    backup = desk.choose(made(desk, "A", "kv"))
    consul.client.delete(f"/v1/kv/{FLEET}", params={"recurse": ""})
    desk.restore(backup)
    after = everything(consul)
    assert FLEET + "B" not in after
    assert after[FLEET + "A"] == before[FLEET + "A"]


def test_a_configuration_has_no_secret_and_takes_it_from_what_is_in_use(
    desk: Desk, consul: ConsulServer, tmp_path: Path
) -> None:
    before = everything(consul)
    backup = desk.choose(made(desk, "A", "configuration"))
    desk.restore(backup, tmp_path / "look")
    files = {str(path.relative_to(tmp_path / "look")): path.read_text() for path in (tmp_path / "look").rglob("*.json")}
    assert sorted(files) == ["agent.json", "launches/A-1.json", "placement.json"]
    assert not [name for name, text in files.items() if HIDDEN in text]
    assert "/etc/token" in files["agent.json"]
    assert '"TOKEN_FILE": "/etc/token"' in files["launches/A-1.json"]
    found, index = get_doc(consul.client, FLEET + "A", AgentDoc)
    assert found
    changed = msgspec.structs.replace(found.agent, environment={"API_KEY": HIDDEN, "MODE": "slow"})
    put_docs(consul.client, [Change(FLEET + "A", msgspec.structs.replace(found, agent=changed), index)])
    assert desk.restore(backup).changed
    assert everything(consul) == before
    consul.client.delete(f"/v1/kv/{FLEET}A")
    with pytest.raises(BackupError, match=r"not in use any more: A.agent.environment.API_KEY"):
        desk.restore(backup)


def test_what_somebody_changed_meanwhile_is_not_overwritten(
    desk: Desk, consul: ConsulServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = desk.choose(made(desk, "A", "kv"))
    planned = restoring._planned

    def raced(*words: object) -> restoring.KeyPlan:
        plan = planned(*words)  # type: ignore[arg-type]
        consul.client.put(f"/v1/kv/{PLACEMENT}A", b'{"agent":"A","reason":"theirs"}')
        return plan

    consul.client.put(f"/v1/kv/{PLACEMENT}A", b'{"agent":"A"}')
    monkeypatch.setattr(restoring, "_planned", raced)
    with pytest.raises(ConsulConflict, match=f"changed by someone else meanwhile: {PLACEMENT}A"):
        desk.restore(backup)
    found, _ = get_doc(consul.client, PLACEMENT + "A", PlacementDoc)
    assert found
    assert found.reason == "theirs"


def test_nothing_is_restored_while_others_work_on_the_fleet(desk: Desk, consul: ConsulServer) -> None:
    backup = desk.choose(made(desk, "A", "kv"))
    consul.client.delete(f"/v1/kv/{FLEET}A")
    with RunLock(consul.client, RUN_LOCK, "site.yml"), pytest.raises(Locked, match=r"site\.yml"):
        desk.restore(backup)
    assert FLEET + "A" not in everything(consul)


def test_a_snapshot_brings_consul_back_after_its_data_are_lost(
    desk: Desk, consul: ConsulServer, tmp_path: Path
) -> None:
    before = everything(consul)
    backup = desk.choose(made(desk, "", "snapshot"))
    with pytest.raises(BackupError, match="replaces all of Consul"):
        desk.restore(backup)
    desk.restore(backup, tmp_path / "snap")
    consul.wipe()
    consul.start()
    assert everything(consul) == {}
    consul.client.put("/v1/snapshot", (tmp_path / "snap" / "consul.snap").read_bytes(), timeout_s=30)
    assert everything(consul) == before


def test_a_snapshot_that_consul_refuses_is_no_backup(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from outrider.migration.backup.sources import SnapshotSource

    whole = SnapshotSource.read

    def cut(self: SnapshotSource) -> dict[str, bytes]:
        return {name: content[:-100] for name, content in whole(self).items()}

    monkeypatch.setattr(SnapshotSource, "read", cut)
    outcome = desk.create("", ["snapshot"])
    assert "consul.snap: Consul refuses it" in outcome.failed[0].error
    assert desk.vault.names() == []


def test_a_document_that_nobody_can_read_is_no_backup(desk: Desk, consul: ConsulServer) -> None:
    consul.client.put(f"/v1/kv/{FLEET}B", b"{}")
    outcome = desk.create("", ["kv"])
    assert "outrider/fleet/B: is no document of ours" in outcome.failed[0].error
    assert desk.vault.names() == []


def test_without_consul_state_is_backed_up_and_the_rest_is_named(desk: Desk, consul: ConsulServer) -> None:
    consul.stop()
    outcome = desk.create("A")
    assert [(done.level, done.did) for done in outcome.done] == [("state", "new")]
    assert [failed.exit_code for failed in outcome.failed] == [3, 3]
    assert "other hosts do not know" in outcome.warnings[0]
    consul.start()
    assert known_everywhere(consul.client) == ()
    desk.verify("A-1")
    assert [k.level for k in known_everywhere(consul.client)] == ["state/A-1"]


def test_what_is_damaged_is_taken_back_before_the_cluster(desk: Desk, consul: ConsulServer) -> None:
    desk.create("A")
    assert prove(consul.client, "A", ("state",)).proven
    backup = desk.choose("A", "state")
    next(path for path in desk.vault.objects.rglob("*") if path.name in backup.manifest.chunks).write_text("tepk")
    outcome = desk.verify("A-1")
    assert f"backup {backup.id}: notes" in outcome.failed[0].error
    standing = prove(consul.client, "A", ("state",))
    assert standing.lacking == {"state": "no backup is known"}
    assert standing.measure().value == 1
    with pytest.raises(BackupError, match="no backup of A-1 that counts"):
        desk.choose("A-1")


@pytest.fixture
def guarded(consul_binary: Path, tmp_path: Path) -> Iterator[ConsulServer]:
    token = str(uuid.uuid4())
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": token}}
    server = ConsulServer(consul_binary, tmp_path / "consul", {"acl": acl})
    server.address = msgspec.structs.replace(server.address, token=token)
    server.client = connect(server.address)
    try:
        server.start()
        publish(server)
        yield server
    finally:
        server.stop()


def test_with_acls_a_snapshot_is_proved_and_the_scratch_consul_stays_closed(
    guarded: ConsulServer, tmp_path: Path
) -> None:
    desk = desk_of(guarded, tmp_path)
    outcome = desk.create("", ["kv", "snapshot"])
    assert (outcome.failed, outcome.warnings) == ((), ())
    with scratch_consul(guarded.binary, tmp_path) as scratch:
        stranger = connect(msgspec.structs.replace(scratch.address, token=""))
        for path in ("/v1/snapshot", "/v1/kv/outrider/"):
            with pytest.raises(ConsulDenied):
                stranger.get(path)


def test_a_token_that_may_not_read_all_makes_no_backup_of_all(guarded: ConsulServer, tmp_path: Path) -> None:
    """Consul leaves out of a list what a token may not read, and says nothing."""
    desk = desk_of(guarded, tmp_path)
    rules = f'key_prefix "{FLEET}" {{ policy = "read" }} key_prefix "{PLACEMENT}" {{ policy = "read" }}'
    guarded.client.put("/v1/acl/policy", msgspec.json.encode({"Name": "some", "Rules": rules}))
    some = msgspec.json.decode(
        guarded.client.put("/v1/acl/token", msgspec.json.encode({"Policies": [{"Name": "some"}]}))
    )
    (tmp_path / "token").write_text(some["SecretID"])
    outcome = desk.create("", ["kv", "snapshot"])
    assert [failed.level for failed in outcome.failed] == ["kv", "snapshot"]
    assert "may not read all keys below outrider/" in outcome.failed[0].error
    assert "token for management" in outcome.failed[0].hint
    assert desk.vault.names() == []
    one = desk.create("A", ["kv"])
    assert [done.did for done in one.done] == ["new"]
    assert "other hosts do not know of the backups of A" in one.warnings[0]


def test_a_manifest_of_another_is_refused_before_anything_is_written(desk: Desk, consul: ConsulServer) -> None:
    backup = made(desk, "A", "kv")
    path = desk.vault.root / backup / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"v1"', b'"v2"').replace(b'"agent":"A"', b'"agent":"B"'))
    with pytest.raises(BackupDamaged, match="was changed after it was made"):
        desk.choose(backup)
    assert everything(consul)
