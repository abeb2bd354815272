"""Reads, blocking queries, sessions and the version; what python-consul2 takes from the environment."""

from __future__ import annotations

import json
import warnings

import pytest

from outrider.errors import ConsulError
from outrider.registry.client import connect


def test_a_reply_has_its_index_as_a_number(fake_consul, answers) -> None:
    headers = {"X-Consul-Index": "10", "X-Consul-KnownLeader": "false", "X-Consul-LastContact": "37", "Age": "4"}
    reply = connect(fake_consul(answers(body=b"[]", headers=headers)).address).get("/v1/kv/a")
    assert (reply.index, reply.known_leader, reply.last_contact_ms, reply.age_s) == (10, False, 37, 4.0)
    assert (reply.status, reply.body) == (200, b"[]")


def test_not_found_is_an_empty_reply_that_can_be_waited_on(fake_consul, answers) -> None:
    fake = fake_consul(answers(status=404, body=b"page not found", headers={"X-Consul-Index": 5}))
    reply = connect(fake.address).get("/v1/kv/a")
    assert (reply.index, reply.body, reply.status) == (5, b"", 404)


def test_a_blocking_query_waits_longer_than_consul_may(fake_consul, answers, monkeypatch) -> None:
    fake = fake_consul(answers())
    client = connect(fake.address)
    limits = []
    request = client.http.request
    monkeypatch.setattr(client.http, "request", lambda *a, **k: (limits.append(k["timeout_s"]), request(*a, **k))[1])
    client.get("/v1/kv/a", index=7, wait_s=10, params={"recurse": ""})
    assert fake.asked[0].params == {"recurse": [""], "index": ["7"], "wait": ["10000ms"]}
    assert limits[0] > 10 + 10 / 16


@pytest.mark.parametrize(("asked_s", "sent"), [(None, "10000ms"), (600, "30000ms"), (0.25, "250ms")])
def test_no_wait_is_long_enough_to_hide_a_lost_wake_up(fake_consul, answers, asked_s, sent) -> None:
    fake = fake_consul(answers())
    connect(fake.address).get("/v1/kv/a", index=7, wait_s=asked_s)
    assert fake.asked[0].params["wait"] == [sent]


def test_an_index_that_is_no_number_is_not_consul(fake_consul, answers) -> None:
    client = connect(fake_consul(answers(headers={"X-Consul-Index": "soon"})).address)
    with pytest.raises(ConsulError, match="not Consul"):
        client.get("/v1/kv/a")


def test_the_version_is_asked_once(fake_consul, answers) -> None:
    fake = fake_consul(answers(body=b'{"Config": {"Version": "1.8.7"}}'))
    client = connect(fake.address)
    assert client.version == (1, 8, 7)
    assert not client.capabilities.tls_stanza
    assert client.version == (1, 8, 7)
    assert len(fake.asked) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"{}", b'{"Config": {"Version": "x"}}'])
def test_something_else_that_answers_is_named(fake_consul, answers, body) -> None:
    with pytest.raises(ConsulError, match="does not tell its version"):
        _ = connect(fake_consul(answers(body=body)).address).version


def test_a_session_has_what_python_consul2_cannot_say(fake_consul, answers) -> None:
    fake = fake_consul(answers(body=b'{"ID": "abc"}'))
    client = connect(fake.address)
    assert client.create_session("x", ttl_s=15, lock_delay_s=0.001, service_checks=["outrider:A-1"]) == "abc"
    assert json.loads(fake.asked[0].body) == {
        "Name": "x",
        "Behavior": "release",
        "LockDelay": "1ms",
        "TTL": "15000ms",
        "NodeChecks": ["serfHealth"],
        "ServiceChecks": [{"ID": "outrider:A-1"}],
    }


def test_the_environment_of_the_caller_changes_nothing(fake_consul, answers, monkeypatch) -> None:
    fake = fake_consul(answers(body=b"{}"))
    for name, value in {"ADDR": "10.1.2.3:1", "TOKEN": "stray", "SSL": "true"}.items():
        monkeypatch.setenv(f"CONSUL_HTTP_{name}", value)
    monkeypatch.setenv("http_proxy", "http://10.1.2.3:1")
    client = connect(fake.address)
    client.agent.self()
    client.get("/v1/agent/self")
    assert len(fake.asked) == 2
    assert not any("stray" in str(asked) for asked in fake.asked)


def test_an_address_in_the_environment_that_python_consul2_cannot_read(monkeypatch) -> None:
    from outrider.registry.address import Address

    monkeypatch.setenv("CONSUL_HTTP_ADDR", "consul.example")
    with pytest.raises(ConsulError, match=r"consul\.example") as caught:
        connect(Address())
    assert "unset CONSUL_HTTP_ADDR" in caught.value.hint


def test_connecting_warns_of_nothing(fake_consul, answers) -> None:
    fake = fake_consul(answers())
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        connect(fake.address).get("/v1/a")
