"""The tokens that the role `consul` makes: a server's shim may place, another host's may not."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import jinja2
import msgspec
import pytest
from msgspec.structs import replace

from integration.conftest import ConsulServer
from outrider.errors import ConsulConflict, ConsulDenied, UnknownMigration
from outrider.failover.desk import Desk
from outrider.failover.election import Election
from outrider.failover.placer import LOST_S, Picture
from outrider.fleet.spec import Agent, Host
from outrider.migration.backup.model import Backup, Manifest, Proof, Subject
from outrider.migration.backup.record import known_everywhere, publish
from outrider.migration.staged.journal import entry_change, read_one, spec_change
from outrider.migration.staged.records import End, Journal, Spec, next_entry
from outrider.migration.staged.retention import delete
from outrider.registry.client import Consul, connect
from outrider.registry.kv import Change, get_doc, list_docs, put_docs
from outrider.registry.layout import (
    BACKUPS,
    FLEET,
    HOSTS,
    MIGRATIONS,
    MOVES,
    PLACEMENT,
    PLACER_LOCK,
    RUN_LOCK,
    AgentDoc,
    HostDoc,
    MoveDoc,
    Placed,
    PlacementDoc,
    move_key,
)
from outrider.registry.lock import RunLock

pytestmark = pytest.mark.integration
TEMPLATES = Path(__file__).parents[2] / "roles" / "consul" / "templates"


@pytest.fixture
def guarded(consul_binary: Path, tmp_path: Path) -> Iterator[ConsulServer]:
    token = str(uuid.uuid4())
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": token}}
    server = ConsulServer(consul_binary, tmp_path, {"acl": acl})
    server.address = msgspec.structs.replace(server.address, token=token)
    server.client = connect(server.address)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def host(guarded: ConsulServer, *, placer: bool) -> Consul:
    """A client with the token of a host, as site.yml makes it."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined)
    rules = environment.get_template("host_policy.hcl.j2").render(
        consul_node_name="local",
        consul_read_prefixes=[FLEET, PLACEMENT, HOSTS, MIGRATIONS, BACKUPS, "outrider/locks/"],
        consul_own_prefixes=[MOVES],
        consul_write_prefixes=[PLACEMENT, HOSTS, MIGRATIONS, MOVES] if placer else [],
        consul_services=["outrider-shim"],
        consul_write_keys=["outrider/backups/A", "outrider/locks/placer" if placer else "outrider/placement/A"],
    )
    name = f"host-{placer}"
    guarded.client.put("/v1/acl/policy", msgspec.json.encode({"Name": name, "Rules": rules}))
    made = guarded.client.put("/v1/acl/token", msgspec.json.encode({"Policies": [{"Name": name}]}))
    return connect(msgspec.structs.replace(guarded.address, token=msgspec.json.decode(made)["SecretID"]))


@pytest.fixture
def fleet(guarded: ConsulServer) -> ConsulServer:
    """A-1 is on h1, which is not there."""
    docs = [
        Change(FLEET + "A", AgentDoc("A", "lab", Agent(module="x"), "v1"), 0),
        Change(PLACEMENT + "A", PlacementDoc("A", (Placed("A-1", "h1", "v1"),)), 0),
        *(Change(HOSTS + name, HostDoc(Host(name)), 0) for name in ("h1", "h2")),
    ]
    with RunLock(guarded.client, RUN_LOCK, "site.yml"):
        put_docs(guarded.client, docs)
    return guarded


PICTURE = Picture({}, {}, {}, 100.0, lost={"h1": 100.0 - LOST_S})


def test_a_servers_shim_may_be_elected_and_place(fleet: ConsulServer) -> None:
    mine = host(fleet, placer=True)
    election = Election(mine, PLACER_LOCK, "local")
    assert election.campaign()
    assert Desk(mine).work(PICTURE, election.guard).done
    doc, _ = get_doc(mine, PLACEMENT + "A", PlacementDoc)
    assert doc
    assert doc.instances[0].host == "h2"
    described, index = get_doc(mine, HOSTS + "h1", HostDoc)
    assert described
    put_docs(mine, [Change(HOSTS + "h1", msgspec.structs.replace(described, state="drained"), index)])
    election.resign()
    with pytest.raises(ConsulDenied):
        put_docs(mine, [Change(FLEET + "A", None, 1)])


def test_a_servers_shim_deletes_a_migration_that_ended_while_it_is_elected(fleet: ConsulServer) -> None:
    journal = Journal(Spec("m1", "A", "cold", End("A-1", "h1", "v1"), End("A-2", "h2", "v1")))
    journal = journal.followed_by(next_entry(journal, "ended", 1.0, "h1", outcome="cancelled"))
    put_docs(fleet.client, [spec_change(journal.spec), entry_change("m1", journal.entries[0])])
    mine = host(fleet, placer=True)
    election = Election(mine, PLACER_LOCK, "local")
    assert election.campaign()
    guard = election.guard
    with pytest.raises(ConsulDenied):
        delete(host(fleet, placer=False), journal, guard)
    other = replace(journal, entries=(replace(journal.entries[0], outcome="finalised"),))
    assert not delete(mine, other, guard)
    election.resign()
    with pytest.raises(ConsulConflict):
        delete(mine, journal, guard)
    assert read_one(fleet.client, "m1") == journal
    again = Election(mine, PLACER_LOCK, "local")
    assert again.campaign()
    assert delete(mine, journal, again.guard)
    with pytest.raises(UnknownMigration):
        read_one(fleet.client, "m1")


def test_another_hosts_shim_may_do_neither(fleet: ConsulServer) -> None:
    mine = host(fleet, placer=False)
    with pytest.raises(ConsulDenied):
        Election(mine, PLACER_LOCK, "local").campaign()
    for key, kind in ((HOSTS + "h1", HostDoc), (PLACEMENT + "B", PlacementDoc)):
        _, index = get_doc(mine, key, kind)
        with pytest.raises(ConsulDenied):
            put_docs(mine, [Change(key, None, index)])
    sessions = msgspec.json.decode(fleet.client.get("/v1/session/list").body)
    assert sessions == []


def test_a_host_may_say_which_backups_it_has_of_its_agents_and_of_no_others(fleet: ConsulServer) -> None:
    mine = host(fleet, placer=False)
    subject = Subject("state", "local", "lab", "A", "A-1")
    manifest = Manifest(subject, 1.0, (), 0, 0, "", "t")
    backup = Backup("A-1.state.x", manifest, Proof("A-1.state.x", 5.0, 0.1, ()))
    assert publish(mine, "A", "local", [backup])
    assert not publish(mine, "A", "local", [backup])
    assert publish(mine, "A", "other", [msgspec.structs.replace(backup, proof=None)]) is False
    assert [known.level for known in known_everywhere(mine)] == ["state/A-1"]
    for agent in ("B", ""):
        with pytest.raises(ConsulDenied):
            publish(mine, agent, "local", [backup])


def test_a_host_reads_the_keys_of_what_moves_from_or_to_it_and_a_server_all(fleet: ConsulServer) -> None:
    """As the migration engine writes and deletes them: whatever is there."""
    other, server = host(fleet, placer=False), host(fleet, placer=True)
    here, there = move_key("local", "A"), move_key("local2", "A")  # a name that begins like ours is another's
    for doc in (MoveDoc("older"), MoveDoc("k", ("local", "local2"))):
        put_docs(server, [Change(key, doc, None) for key in (here, there)])
    assert get_doc(other, here, MoveDoc)[0] == MoveDoc("k", ("local", "local2"))
    with pytest.raises(ConsulDenied):
        get_doc(other, there, MoveDoc)
    assert list_docs(other, MOVES, MoveDoc).docs.keys() == {"local/A"}
    assert list_docs(server, MOVES, MoveDoc).docs.keys() == {"local/A", "local2/A"}
    for key in (here, there):
        with pytest.raises(ConsulDenied):
            put_docs(other, [Change(key, None, None)])
    for _ in range(2):  # also when nothing is there any more
        put_docs(server, [Change(key, None, None) for key in (here, there)])
    assert get_doc(server, here, MoveDoc) == (None, 0)
