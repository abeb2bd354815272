"""What a URL names, which answer is returned, and where a request goes instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.calls import Client
from outrider.calls.http_guard import Exchange, HttpGuard, Where, is_agent, url_at
from outrider.discovery.catalogue import CatalogueWriter
from outrider.discovery.records import Entry, Instance
from outrider.errors import CallTimeout, CatalogueError, ConnectionLost, OutriderError, UnknownAgent

URL = "http://my-agent.outrider/work"


def instance(agent: str, number: int, address: str = "10.0.0.1") -> Instance:
    return Instance(agent, f"{agent}-{number}", "elsewhere", address, 80 + number, {"main": 80 + number, "health": 90})


def publish(writer: CatalogueWriter, *agents: str) -> None:
    writer.publish({agent: Entry(agent, (instance(agent, 1), instance(agent, 2))) for agent in agents})


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[CatalogueWriter]:
    made = CatalogueWriter(tmp_path)
    publish(made, "My_Agent", "Other")
    yield made
    made.close()


@pytest.fixture
def guard(tmp_path: Path, writer: CatalogueWriter) -> Iterator[HttpGuard]:
    client = Client(runtime=tmp_path)
    yield HttpGuard(client, 1.0)
    client.close()


def exchange(guard: HttpGuard, method: str = "GET", *, repeatable: bool = True) -> Exchange:
    return Exchange(guard, URL, method, None, repeatable=repeatable)


def asked(guard: HttpGuard) -> Exchange:
    one = exchange(guard, "POST")
    one.next_url()
    return one


@pytest.mark.parametrize(("host", "expected"), [("a.outrider", True), ("A.OUTRIDER", True), ("outrider", False)])
def test_an_agent_is_known_by_the_end_of_its_host(host: str, expected: bool) -> None:
    assert (is_agent(host), is_agent(f"{host}.example"), is_agent(None)) == (expected, False, False)


@pytest.mark.parametrize("host", ["My_Agent", "my_agent", "MY-AGENT"])
def test_case_and_dashes_do_not_count(guard: HttpGuard, host: str) -> None:
    assert guard.where(f"http://{host}.outrider/") == Where("My_Agent", "")
    assert guard.where(f"http://health.{host}.outrider:80/") == Where("My_Agent", "health")


def test_a_numbered_port_is_refused_with_what_to_write(guard: HttpGuard) -> None:
    with pytest.raises(OutriderError, match=r"http://NAME\.other\.outrider/"):
        guard.where("http://other.outrider:8080/")


def test_an_agent_published_later_is_found(guard: HttpGuard, writer: CatalogueWriter) -> None:
    with pytest.raises(UnknownAgent, match="did you mean Other"):
        guard.where("http://othr.outrider/")
    publish(writer, "Other", "Othr")
    assert guard.where("http://othr.outrider/").agent == "Othr"


def test_an_agent_of_a_catalogue_that_was_replaced_is_found(tmp_path: Path) -> None:
    client = Client(runtime=tmp_path)
    guard = HttpGuard(client, 1.0)
    for agent in ("First", "Second"):
        for file in tmp_path.glob("catalogue.*"):
            file.unlink()
        writer = CatalogueWriter(tmp_path)
        publish(writer, agent)
        assert guard.where(f"http://{agent}.outrider/").agent == agent
        writer.close()
    client.close()


def test_the_url_at_an_instance() -> None:
    assert url_at("http://x.outrider/a?b=c", instance("X", 1), "") == "http://10.0.0.1:81/a?b=c"
    assert url_at("http://x.outrider/", instance("X", 1, "fd00::1"), "health") == "http://[fd00::1]:90/"
    with pytest.raises(CatalogueError, match="X-1 has no port nope; it has: main, health"):
        url_at("http://x.outrider/", instance("X", 1), "nope")


@pytest.mark.parametrize("status", [200, 301, 404, 429])
def test_what_is_below_500_is_an_answer(guard: HttpGuard, status: int) -> None:
    with exchange(guard) as one:
        one.next_url()
        assert one.answered(status, full=False)
    assert one.plan.target.tallies["GET"].outcomes == {"ok": 1}


@pytest.mark.parametrize(
    ("method", "repeatable", "status", "returned"),
    [
        ("GET", True, 503, False),
        ("get", True, 502, False),
        ("PUT", True, 504, False),
        ("GET", True, 500, True),
        ("POST", True, 503, True),
        ("PATCH", True, 503, True),
        ("PUT", False, 503, True),
    ],
)
def test_which_failures_another_instance_is_asked_after(
    guard: HttpGuard, method: str, repeatable: bool, status: int, returned: bool
) -> None:
    one = exchange(guard, method, repeatable=repeatable)
    first = one.next_url()
    assert one.answered(status, full=False) is returned
    assert returned or one.next_url() != first


def test_full_is_not_ill(guard: HttpGuard) -> None:
    for full in (True, False):
        for _ in range(30):
            with exchange(guard, "POST") as one:
                one.next_url()
                assert one.answered(503, full=full)
            if not all(peer.breaker.is_closed for peer in one.plan.target.peers):
                break
        assert all(peer.breaker.is_closed for peer in one.plan.target.peers) is full
    assert set(one.plan.target.tallies["POST"].outcomes) == {"overloaded", "failed"}


def test_a_body_that_is_gone_goes_elsewhere_only_if_nobody_got_it(guard: HttpGuard) -> None:
    one = exchange(guard, "POST", repeatable=False)
    first = one.next_url()
    one.failed(ConnectionLost("no connection", safe=True))
    assert one.next_url() != first
    with pytest.raises(ConnectionLost):
        one.failed(ConnectionLost("broke"))


def test_how_it_ended_is_counted_and_nothing_stays_in_flight(guard: HttpGuard) -> None:
    one = asked(guard)
    with pytest.raises(CallTimeout), one:
        one.failed(CallTimeout("no answer"))
    with pytest.raises(KeyboardInterrupt), asked(guard):
        raise KeyboardInterrupt
    target = one.plan.target
    assert target.tallies["POST"].outcomes == {"timeout": 1, "abandoned": 1}
    assert [peer.in_flight for peer in target.peers] == [0, 0]


def test_ports_of_one_agent_share_no_circuit_and_no_count(guard: HttpGuard) -> None:
    with Exchange(guard, "http://health.my-agent.outrider/", "GET", None, repeatable=True) as one:
        assert one.next_url().endswith(":90/")
        assert one.answered(200, full=False)
    assert one.plan.target is not exchange(guard).plan.target
    assert list(one.plan.target.tallies) == ["GET health"]
