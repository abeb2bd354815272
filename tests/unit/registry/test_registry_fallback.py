"""Several Consul agents as one: who is asked after one that does not answer, and when the first one again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from outrider.errors import ConsulError, ConsulUnreachable
from outrider.registry import fallback
from outrider.registry.address import Address
from outrider.registry.client import Consul, connect
from outrider.registry.fallback import HOME_S, Fallback
from outrider.registry.leases import create_session
from outrider.registry.watch import Watch

WITHIN_S = 20.0
NOBODY = Address(port=1)


class Clock:
    """Monotonic seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def two(fake_consul, answers) -> list[Address]:
    return [fake_consul(answers(body=body)).address for body in (b"one", b"two")]


def said(http: Fallback) -> bytes:
    return http.request("GET", "/v1/x").body


def test_what_fails_is_asked_of_the_next_and_nothing_is_sent_twice(two: list[Address]) -> None:
    http = Fallback([NOBODY, *two])
    with pytest.raises(ConsulUnreachable):
        http.request("PUT", "/v1/x")
    assert [said(http), said(http)] == [b"one", b"one"]


def test_an_error_that_consul_answers_moves_nobody_on(fake_consul, answers, two: list[Address]) -> None:
    client = connect(fake_consul(answers(status=500, body=b"invalid session")).address, *two)
    for _ in range(2):
        with pytest.raises(ConsulError, match="invalid session"):
            client.get("/v1/x")


@pytest.mark.parametrize("said_", [b"No cluster leader", b"No known Consul servers", b"rpc error getting client: x"])
def test_an_agent_that_has_lost_the_others_is_not_asked_again(fake_consul, answers, two, said_: bytes) -> None:
    client = connect(fake_consul(answers(status=500, body=said_)).address, *two)
    with pytest.raises(ConsulError, match=said_.decode()):
        client.get("/v1/x")
    assert client.get("/v1/x").body == b"one"


def test_the_first_is_tried_again_after_a_while(two: list[Address]) -> None:
    clock = Clock()
    http = Fallback([NOBODY, *two], clock=clock)
    with pytest.raises(ConsulUnreachable):
        said(http)
    clock.now += HOME_S - 1
    assert said(http) == b"one"
    clock.now += 1
    with pytest.raises(ConsulUnreachable):
        said(http)


def test_a_host_that_is_lost_is_left_out_unless_all_are(two: list[Address]) -> None:
    lost: set[str] = set()
    http = Fallback([NOBODY, Address(host="localhost", port=1), *two], lambda: lost)
    lost.add("localhost")
    with pytest.raises(ConsulUnreachable):
        said(http)
    assert said(http) == b"one"
    lost.add("127.0.0.1")
    http = Fallback([NOBODY, *two], lambda: lost)
    with pytest.raises(ConsulUnreachable):
        said(http)
    assert said(http) == b"one"


def test_an_old_connection_that_breaks_does_not_move_on_from_the_one_that_answers(two: list[Address]) -> None:
    http = Fallback([NOBODY, *two])
    old = http.line()
    with pytest.raises(ConsulUnreachable):
        said(http)
    with pytest.raises(ConsulUnreachable):
        http.request("GET", "/v1/x", line=old)
    assert said(http) == b"one"


@pytest.fixture
def hanging(fake_consul, answers) -> Iterator[tuple[Address, threading.Event]]:
    """A Consul agent that takes questions and answers none, and whether it was asked."""
    asked, end = threading.Event(), threading.Event()
    yield fake_consul(answers(before=lambda: (asked.set(), end.wait(60)))).address, asked
    end.set()


@pytest.fixture
def watched() -> Iterator[Callable[..., list[bytes]]]:
    """Watch with a client until the first answer; the answers."""
    watches: list[Watch] = []

    def start(client: Consul, asked: threading.Event, *, doubt: bool, **options: float) -> list[bytes]:
        bodies, told = [], threading.Event()
        contacts = []
        watch = Watch(
            client,
            "/v1/x",
            on_change=lambda reply: (bodies.append(reply.body), told.set()),
            on_contact=contacts.append,
            **options,
        )
        watches.append(watch)
        watch.start()
        assert asked.wait(WITHIN_S)
        if doubt:
            watch.ask_again()
        assert told.wait(WITHIN_S)
        assert [contact.ok for contact in contacts[:2]] == ([True] if doubt else [False, True])[: len(contacts)]
        return bodies

    yield start
    for watch in watches:
        watch.stop()


def test_a_watch_that_is_doubted_asks_the_next_one_and_reports_no_failure(hanging, watched, two) -> None:
    address, asked = hanging
    assert watched(connect(address, *two), asked, doubt=True) == [b"one"]


def test_a_watch_waits_no_longer_than_it_was_told_for_a_late_answer(hanging, watched, two) -> None:
    """With the client's own time-out it would wait for two seconds."""
    address, asked = hanging
    client = connect(Address(port=address.port, timeout_s=60.0), *two)
    assert watched(client, asked, doubt=False, late_s=0.2) == [b"one"]


def test_a_watch_comes_home(fake_consul, answers, two, watched, monkeypatch) -> None:
    """It would else stay with the server that answers it, and all hosts' watches with it."""
    monkeypatch.setattr(fallback, "HOME_S", 0.3)
    asked, told = threading.Event(), threading.Event()
    home = fake_consul(answers(before=lambda: (asked.set(), told.is_set() or time.sleep(1.0)), body=b"home"))
    client = connect(home.address, *two)
    assert watched(client, asked, doubt=True) == [b"one"]
    told.set()
    before = len(home.asked)
    deadline = time.monotonic() + WITHIN_S
    while len(home.asked) == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_session_is_the_hosts_own_also_when_a_server_makes_it(fake_consul, answers) -> None:
    server = fake_consul(answers(body=b'{"ID": "s"}'))
    client = connect(NOBODY, server.address)
    with pytest.raises(ConsulUnreachable):
        create_session(client, "h1")
    assert create_session(client, "h1") == "s"
    assert b'"Node":"h1"' in server.asked[0].body
    assert create_session(connect(server.address), "h1") == "s"
    assert b"Node" not in server.asked[1].body.replace(b"NodeChecks", b"")
