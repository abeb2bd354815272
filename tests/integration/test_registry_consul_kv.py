"""Documents and the client's basic calls against a real Consul."""

from __future__ import annotations

import base64
import json

import pytest
from msgspec.structs import replace

from outrider.errors import ConsulConflict, ConsulError, ConsulUnreachable
from outrider.fleet.spec import Agent
from outrider.registry.client import connect
from outrider.registry.kv import Change, Guard, delete_tree, get_doc, list_docs, put_docs
from outrider.registry.layout import FLEET, AgentDoc


@pytest.fixture
def prefix(request) -> str:
    """Keys of this test alone."""
    return f"{FLEET}{request.node.name}/"


def doc(name: str, version: str = "1") -> AgentDoc:
    return AgentDoc(name, "test", Agent(command=("sleep", "9"), ports={"main": 7000}), version)


def test_a_document_comes_back_as_it_was_written(shared_consul, prefix) -> None:
    client = shared_consul.client
    assert get_doc(client, f"{prefix}A", AgentDoc) == (None, 0)
    indexes = put_docs(client, [Change(f"{prefix}A", doc("A"), 0)])
    assert get_doc(client, f"{prefix}A", AgentDoc) == (doc("A"), indexes[f"{prefix}A"])


def test_listing_names_what_is_malformed_and_gives_the_rest(shared_consul, prefix) -> None:
    client = shared_consul.client
    assert list_docs(client, prefix, AgentDoc).docs == {}
    put_docs(client, [Change(f"{prefix}{name}", doc(name), 0) for name in "AB"])
    client.put(f"/v1/kv/{prefix}C", b"not JSON")
    docs = list_docs(client, prefix, AgentDoc)
    assert {name: found for name, (found, _) in docs.docs.items()} == {"A": doc("A"), "B": doc("B")}
    assert [problem.partition(": ")[0] for problem in docs.problems] == [f"{prefix}C"]
    assert docs.index > 0


def test_whoever_read_an_older_version_loses_and_is_told_the_key(shared_consul, prefix) -> None:
    client = shared_consul.client
    first = put_docs(client, [Change(f"{prefix}{name}", doc(name), 0) for name in "AB"])
    put_docs(client, [Change(f"{prefix}A", doc("A", "2"), first[f"{prefix}A"])])
    late = [Change(f"{prefix}B", doc("B", "3"), first[f"{prefix}B"]), Change(f"{prefix}A", None, first[f"{prefix}A"])]
    with pytest.raises(ConsulConflict, match=f"meanwhile: {prefix}A\n") as caught:
        put_docs(client, late)
    assert caught.value.status == 409
    left = {name: found.version for name, (found, _) in list_docs(client, prefix, AgentDoc).docs.items()}
    assert left == {"A": "2", "B": "1"}, "nothing of the transaction is applied"


def test_a_document_that_must_not_exist_is_not_overwritten(shared_consul, prefix) -> None:
    put_docs(shared_consul.client, [Change(f"{prefix}A", doc("A"), 0)])
    for again in (doc("A", "2"), None):
        with pytest.raises(ConsulConflict, match=prefix):
            put_docs(shared_consul.client, [Change(f"{prefix}A", again, 0)])


def test_deleting_takes_the_version_that_was_read(shared_consul, prefix) -> None:
    client = shared_consul.client
    index = put_docs(client, [Change(f"{prefix}A", doc("A"), 0)])[f"{prefix}A"]
    assert put_docs(client, [Change(f"{prefix}A", None, index)]) == {}
    assert get_doc(client, f"{prefix}A", AgentDoc) == (None, 0)


def test_a_whole_folder_goes_at_once_while_its_guard_holds_and_nothing_beside_it(shared_consul, prefix) -> None:
    client = shared_consul.client
    indexes = put_docs(client, [Change(f"{prefix}{name}", doc(name), 0) for name in ("m/A", "m/B", "mm/A")])
    with pytest.raises(ConsulConflict, match=f"meanwhile: {prefix}m/A"):
        delete_tree(client, f"{prefix}m/", [Guard(f"{prefix}m/A", index=indexes[f"{prefix}m/A"] + 1)])
    assert len(list_docs(client, prefix, AgentDoc).docs) == 3
    delete_tree(client, f"{prefix}m/", [Guard(f"{prefix}m/A", index=indexes[f"{prefix}m/A"])])
    assert list_docs(client, prefix, AgentDoc).docs.keys() == {"mm/A"}


def test_a_fleet_of_more_than_one_transaction_is_written_whole(shared_consul, prefix) -> None:
    changes = [Change(f"{prefix}A{n:03}", doc(f"A{n:03}"), 0) for n in range(150)]
    assert len(put_docs(shared_consul.client, changes)) == 150
    assert len(list_docs(shared_consul.client, prefix, AgentDoc).docs) == 150


def test_large_documents_stay_below_what_consul_takes_in_one_request(shared_consul, prefix) -> None:
    agent = Agent(command=("x",), config={"text": "x" * 100_000})
    changes = [Change(f"{prefix}{n}", AgentDoc(str(n), "test", agent, "1"), 0) for n in range(8)]
    assert len(put_docs(shared_consul.client, changes)) == 8


def test_python_consul2_speaks_through_the_same_client(shared_consul, prefix) -> None:
    client = shared_consul.client
    assert client.kv.put(f"{prefix}a b?c", "worth")
    index, pair = client.kv.get(f"{prefix}a b?c")
    assert (int(index) > 0, pair["Value"]) == (True, b"worth")
    assert client.kv.get(f"{prefix}missing")[1] is None
    assert client.txn.put([{"KV": {"Verb": "get", "Key": f"{prefix}a b?c"}}])["Errors"] is None
    assert shared_consul.address.host in client.status.leader()


def test_a_key_that_consul_would_redirect_elsewhere_is_an_error(shared_consul, prefix) -> None:
    for key in (f"{prefix}/a", f"{prefix}../a"):
        with pytest.raises(ConsulError) as caught:
            shared_consul.client.put(f"/v1/kv/{key}", b"x")
        assert caught.value.status == 301


def test_the_version_decides_what_consul_can_do(shared_consul) -> None:
    reply = json.loads(shared_consul.client.get("/v1/agent/self").body)
    assert ".".join(map(str, shared_consul.client.version)) == reply["Config"]["Version"].split("+")[0]
    assert shared_consul.client.capabilities.max_txn_ops == 64


def test_a_session_binds_checks_and_a_lock_delay_below_a_second(shared_consul) -> None:
    client = shared_consul.client
    check = {"ID": "bound", "Name": "bound", "TTL": "60s", "Status": "passing"}
    service = {"ID": "S-1", "Name": "S", "Check": check | {"CheckID": check.pop("ID")}}
    client.put("/v1/agent/service/register", json.dumps(service).encode())
    session = client.create_session("test", ttl_s=15, lock_delay_s=0.001, service_checks=["bound"])
    (info,) = json.loads(client.get(f"/v1/session/info/{session}").body)
    assert info["ServiceChecks"] == [{"ID": "bound", "Namespace": ""}]
    assert info["NodeChecks"] == ["serfHealth"]
    assert (info["LockDelay"], info["TTL"], info["Behavior"]) == (1_000_000, "15000ms", "release")
    client.put("/v1/agent/check/fail/bound")
    assert json.loads(client.get(f"/v1/session/info/{session}").body) == [], "the failed check ended it"


def test_a_dead_and_a_frozen_consul_are_unreachable_in_time_and_it_may_come_back(consul) -> None:
    client = connect(replace(consul.address, timeout_s=0.5))
    client.put("/v1/kv/kept", b"1")
    consul.freeze()
    with pytest.raises(ConsulUnreachable, match="timed out"):
        client.get("/v1/kv/kept")
    consul.thaw()
    consul.stop()
    with pytest.raises(ConsulUnreachable, match="connection refused"):
        client.put("/v1/kv/kept", b"2")
    consul.start()
    (pair,) = json.loads(client.get("/v1/kv/kept").body)
    assert base64.b64decode(pair["Value"]) == b"1"
