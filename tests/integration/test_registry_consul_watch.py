"""Watches on a real Consul: promptness, silence, and an index that goes back."""

from __future__ import annotations

import base64
import json
import queue
import time
from collections.abc import Callable, Iterator

import pytest

from outrider.registry.client import Reply
from outrider.registry.kv import decode_docs
from outrider.registry.watch import Contact, Watch

WITHIN_S = 30.0


class Seen:
    """What a watch told."""

    def __init__(self) -> None:
        self.changes: queue.Queue[Reply] = queue.Queue()
        self.contacts: queue.Queue[Contact] = queue.Queue()

    def change(self) -> Reply:
        return self.changes.get(timeout=WITHIN_S)

    def contact_that(self, is_wanted: Callable[[Contact], bool]) -> Contact:
        deadline = time.monotonic() + WITHIN_S
        while not is_wanted(contact := self.contacts.get(timeout=max(0.01, deadline - time.monotonic()))):
            pass
        return contact


@pytest.fixture
def watching() -> Iterator[Callable[..., Seen]]:
    watches: list[Watch] = []

    def start(server, path: str, **options) -> Seen:
        seen = Seen()
        callbacks = {"on_change": seen.changes.put, "on_contact": seen.contacts.put}
        watches.append(Watch(server.client, path, **callbacks, **options))
        watches[-1].start()
        return seen

    yield start
    for watch in watches:
        watch.stop()


def test_a_change_arrives_at_once_as_documents(shared_consul, watching) -> None:
    seen = watching(shared_consul, "/v1/kv/outrider/prompt/", params={"recurse": ""})
    assert seen.change().status == 404
    began = time.monotonic()
    shared_consul.client.put("/v1/kv/outrider/prompt/A", b'{"count": 1}')
    docs = decode_docs(seen.change(), "outrider/prompt/", dict)
    assert time.monotonic() - began < 10
    assert [found for found, _ in docs.docs.values()] == [{"count": 1}]


def test_one_more_instance_of_a_service_shows_in_the_index_alone(shared_consul, watching) -> None:
    node = {"Node": "first", "Address": "10.0.0.8", "Service": {"Service": "Twice"}}
    shared_consul.client.put("/v1/catalog/register", json.dumps(node).encode())
    seen = watching(shared_consul, "/v1/catalog/services", by_index=True)
    assert b"Twice" in seen.change().body
    shared_consul.client.put("/v1/catalog/register", json.dumps(node | {"Node": "second"}).encode())
    assert b"Twice" in seen.change().body


def test_what_changes_elsewhere_is_not_told(shared_consul, watching) -> None:
    """catalog/node wakes for every node and service; only content that differs is a change."""
    # The first registration also brings the Consul agent's own entry up to date.
    shared_consul.client.put("/v1/agent/service/register", json.dumps({"Name": "Base"}).encode())
    seen = watching(shared_consul, f"/v1/catalog/node/{shared_consul.node}")
    assert b"Base" in seen.change().body
    node = {"Node": "elsewhere", "Address": "10.0.0.9", "Service": {"Service": "Noise"}}
    for port in range(3):
        node["Service"]["Port"] = port
        shared_consul.client.put("/v1/catalog/register", json.dumps(node).encode())
    shared_consul.client.put("/v1/agent/service/register", json.dumps({"Name": "Here"}).encode())
    assert b"Here" in seen.change().body
    assert seen.changes.empty()


def test_a_failure_arrives_on_the_critical_feed(shared_consul, watching) -> None:
    client = shared_consul.client
    check = {"ID": "feed", "Name": "feed", "TTL": "60s", "Status": "passing"}
    client.put("/v1/agent/check/register", json.dumps(check).encode())
    seen = watching(shared_consul, "/v1/health/state/critical", params={"near": "_agent"})
    assert b'"feed"' not in seen.change().body
    began = time.monotonic()
    client.put("/v1/agent/check/fail/feed")
    assert b'"feed"' in seen.change().body
    assert time.monotonic() - began < 10


def test_a_restored_snapshot_takes_the_index_back_and_nothing_is_missed(consul, watching) -> None:
    client = consul.client
    client.put("/v1/kv/watched", b"old")
    snapshot = client.get("/v1/snapshot", timeout_s=10).body
    for n in range(60):
        client.put(f"/v1/kv/filler/{n}", b"")
    client.put("/v1/kv/watched", b"new")
    seen = watching(consul, "/v1/kv/watched")
    before = seen.change()
    client.put("/v1/snapshot", snapshot, timeout_s=10)
    began = time.monotonic()
    after = seen.change()
    assert time.monotonic() - began < 10, "Consul wakes nobody once the restored store is there"
    assert after.index < before.index
    assert json.loads(after.body)[0]["Value"] == base64.b64encode(b"old").decode()
    client.put("/v1/kv/watched", b"newer")
    assert json.loads(seen.change().body)[0]["Value"] == base64.b64encode(b"newer").decode()


def test_a_consul_that_lost_everything_is_followed_from_the_start(consul, watching) -> None:
    client = consul.client
    for n in range(60):
        client.put(f"/v1/kv/filler/{n}", b"")
    client.put("/v1/kv/watched", b"old")
    seen = watching(consul, "/v1/kv/watched")
    before = seen.change()
    consul.wipe()
    assert not seen.contact_that(lambda contact: not contact.ok).known_leader
    consul.start()
    assert seen.change().status == 404
    client.put("/v1/kv/watched", b"new")
    after = seen.change()
    assert (after.status, after.index < before.index) == (200, True)


def test_a_restart_is_told_as_lost_and_found_contact_and_as_no_change(consul, watching) -> None:
    consul.client.put("/v1/kv/watched", b"same")
    seen = watching(consul, "/v1/kv/watched")
    seen.change()
    consul.stop()
    assert seen.contact_that(lambda contact: not contact.ok).error
    consul.start()
    assert seen.contact_that(lambda contact: contact.ok).known_leader
    assert seen.changes.empty()


def test_a_frozen_consul_is_lost_contact_within_the_wait(consul, watching) -> None:
    consul.client.put("/v1/kv/watched", b"same")
    seen = watching(consul, "/v1/kv/watched", wait_s=0.5)
    seen.change()
    consul.freeze()
    began = time.monotonic()
    assert "timed out" in seen.contact_that(lambda contact: not contact.ok).error
    assert time.monotonic() - began < 0.5 + 0.5 / 16 + consul.address.timeout_s + 10
    consul.thaw()
    assert seen.contact_that(lambda contact: contact.ok).known_leader


def test_stopping_ends_the_connection_at_once(shared_consul, watching) -> None:
    seen = Seen()
    watch = Watch(shared_consul.client, "/v1/kv/quiet", on_change=seen.changes.put)
    watch.start()
    seen.change()
    began = time.monotonic()
    watch.stop()
    assert time.monotonic() - began < 5
