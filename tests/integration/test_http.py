"""requests and httpx reach plain HTTP servers by their agent's name, past instances that are gone, ill or stuck."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

import outrider.http
from outrider.calls import Client, context
from outrider.calls.settings import Settings
from outrider.discovery.catalogue import CatalogueWriter
from outrider.discovery.records import Entry, Instance
from outrider.errors import CallError, OutriderError, UnknownAgent

SCRIPT = Path(__file__).with_name("plain_http_agent.py")
URL = "http://my_Agent.outrider/work?x=1"


class Servers:
    """Instances of one agent, by number."""

    def __init__(self, runtime: Path, count: int) -> None:
        self.processes = [
            subprocess.Popen([sys.executable, str(SCRIPT), str(n)], stdout=subprocess.PIPE, text=True)
            for n in range(1, count + 1)
        ]
        self.ports = [int(p.stdout.readline()) for p in self.processes if p.stdout]
        self._writer = CatalogueWriter(runtime)
        self.publish()

    def publish(self, *, held: bool = False, health: int = 0) -> None:
        found = tuple(
            Instance(
                "my_Agent",
                f"my_Agent-{n}",
                "here",
                "127.0.0.1",
                port,
                {"main": port, "health": health or port},
            )
            for n, port in enumerate(self.ports, 1)
        )
        self._writer.publish({"my_Agent": Entry("my_Agent", found, held)})

    def mode(self, number: int, mode: str) -> None:
        requests.post(f"http://127.0.0.1:{self.ports[number - 1]}/mode/{mode}", timeout=5)

    def kill(self, number: int) -> None:
        self.processes[number - 1].kill()
        self.processes[number - 1].wait()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        self._writer.close()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(tmp_path, 3)
    yield made
    made.close()


@pytest.fixture
def calls(tmp_path: Path, servers: Servers) -> Iterator[Client]:
    made = Client(runtime=tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["requests", "httpx"])
def http(request: pytest.FixtureRequest, calls: Client) -> Iterator[Any]:
    """What both libraries have in common: get, post, request."""
    make = outrider.http.session if request.param == "requests" else outrider.http.client
    with make(timeout=5.0, calls=calls) as made:
        yield made


def post(http: Any, text: str) -> Any:
    return http.post(URL, **({"data": text} if isinstance(http, requests.Session) else {"content": text}))


def test_an_agent_is_reached_by_its_name_and_all_instances_share(http: Any) -> None:
    answers = [post(http, "hello") for _ in range(60)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["name"] for answer in answers} == {"1", "2", "3"}
    document = answers[0].json()
    assert (document["path"], document["body"]) == ("/work?x=1", "hello")
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", document["headers"]["traceparent"])


@pytest.mark.parametrize("name", ["MY-AGENT.outrider", "my-agent.OUTRIDER", "health.my_agent.outrider"])
def test_case_and_dashes_do_not_count_and_ports_have_names(http: Any, name: str) -> None:
    assert http.get(f"http://{name}/").status_code == 200


def test_other_hosts_are_reached_as_ever(http: Any, servers: Servers) -> None:
    assert http.get(f"http://127.0.0.1:{servers.ports[1]}/").json()["name"] == "2"


def test_an_unknown_agent_is_an_error_with_its_nearest_name(http: Any) -> None:
    with pytest.raises(UnknownAgent, match="did you mean my_Agent"):
        http.get("http://my-agnet.outrider/")


def test_one_that_was_killed_is_missed_by_nobody(http: Any, servers: Servers) -> None:
    for _ in range(10):
        http.get(URL)
    servers.kill(1)
    assert {http.get(URL).json()["name"] for _ in range(40)} == {"2", "3"}
    assert {post(http, "x").json()["name"] for _ in range(40)} == {"2", "3"}


def test_what_may_be_repeated_is_when_an_instance_answers_503(http: Any, servers: Servers) -> None:
    servers.mode(1, "503")
    assert {http.get(URL).status_code for _ in range(60)} == {200}
    # A post may have been worked on: its answer is the caller's.
    assert 503 in {post(http, "x").status_code for _ in range(60)}


def test_an_error_that_another_instance_would_give_too_is_returned(http: Any, servers: Servers) -> None:
    for n in (1, 2, 3):
        servers.mode(n, "500")
    assert http.get(URL).status_code == 500
    for n in (1, 2, 3):
        servers.mode(n, "404")
    assert http.get(URL).status_code == 404


def test_a_circuit_keeps_callers_from_one_that_fails_until_it_is_well(
    http: Any, servers: Servers, calls: Client
) -> None:
    servers.mode(1, "500")
    statuses = [post(http, "x").status_code for _ in range(200)]
    assert statuses[100:].count(500) < 10
    servers.mode(1, "well")
    end = time.monotonic() + 15
    while http.get(URL).json()["name"] != "1" or not calls.targets()[0].peers[0].breaker.is_closed:
        assert time.monotonic() < end, "it is not asked again"


def test_a_stuck_one_costs_no_more_than_the_timeout(http: Any, servers: Servers) -> None:
    for n in (1, 2, 3):
        servers.mode(n, "hang")
    began = time.monotonic()
    with pytest.raises((requests.Timeout, httpx.TimeoutException)):
        http.get(URL, timeout=0.3)
    assert time.monotonic() - began < 3


def test_the_deadline_of_the_call_being_worked_on_holds_here_too(http: Any, servers: Servers) -> None:
    for n in (1, 2, 3):
        servers.mode(n, "hang")
    token = context.deadline.set(time.monotonic() + 0.2)
    try:
        began = time.monotonic()
        with pytest.raises((requests.RequestException, httpx.TransportError)):
            http.get(URL, timeout=20)
        assert time.monotonic() - began < 3
    finally:
        context.deadline.reset(token)


def test_requests_are_counted_with_the_calls(http: Any, calls: Client) -> None:
    http.get(URL)
    assert {method: tally.outcomes for method, tally in calls.targets()[0].tallies.items()} == {"GET": {"ok": 1}}


def test_connections_are_kept(http: Any) -> None:
    answers = [http.get(URL).json() for _ in range(30)]
    assert len({answer["connection"] for answer in answers}) == len({answer["name"] for answer in answers})


def test_bodies_stream_both_ways(http: Any) -> None:
    pieces = [b"one ", b"two ", b"three"]
    if isinstance(http, requests.Session):
        with http.post(URL, data=iter(pieces), stream=True) as answer:
            received = b"".join(answer.iter_content(7))
    else:
        with http.stream("POST", URL, content=iter(pieces)) as answer:
            received = b"".join(answer.iter_bytes(7))
    assert json.loads(received)["body"] == "one two three"


def test_a_body_that_can_be_read_once_is_sent_once(http: Any, servers: Servers, calls: Client) -> None:
    for n in (1, 2, 3):
        servers.mode(n, "503")
    key = "data" if isinstance(http, requests.Session) else "content"
    assert http.put(URL, **{key: iter([b"x"])}).status_code == 503
    assert [tally.retries for tally in calls.targets()[0].tallies.values()] == [0]
    assert http.put(URL, **{key: "x"}).status_code == 503
    assert [tally.retries for tally in calls.targets()[0].tallies.values()] == [calls.settings.attempts - 1]


def test_a_stuck_one_is_asked_no_more_and_the_others_serve(http: Any, servers: Servers) -> None:
    servers.mode(1, "hang")
    for _ in range(12):
        with contextlib.suppress(requests.Timeout, httpx.TimeoutException):
            http.get(URL, timeout=0.3)
    # It still takes connections, so that trials go on; each is repeated elsewhere within the timeout.
    assert {http.get(URL, timeout=2).json()["name"] for _ in range(30)} == {"2", "3"}


def test_a_body_that_comes_too_slowly_ends_with_the_timeout(http: Any, servers: Servers) -> None:
    for n in (1, 2, 3):
        servers.mode(n, "drip")
    began = time.monotonic()
    with pytest.raises((requests.Timeout, httpx.TimeoutException)):
        http.get(URL, timeout=0.5)
    assert time.monotonic() - began < 3


def test_a_body_that_breaks_off_is_not_taken_for_a_whole_one(http: Any, servers: Servers) -> None:
    for n in (1, 2, 3):
        servers.mode(n, "cut")
    with pytest.raises((requests.ConnectionError, httpx.TransportError)):
        http.get(URL)


def test_a_full_one_is_not_ill(http: Any, servers: Servers, calls: Client) -> None:
    servers.mode(1, "503full")
    assert 503 in {post(http, "x").status_code for _ in range(60)}
    assert all(peer.breaker.is_closed for peer in calls.targets()[0].peers)


def test_a_held_agent_is_waited_for(http: Any, servers: Servers) -> None:
    servers.publish(held=True)
    release = threading.Timer(0.5, servers.publish)
    release.start()
    began = time.monotonic()
    assert http.get(URL).status_code == 200
    assert time.monotonic() - began > 0.4
    servers.publish(held=True)
    with pytest.raises((requests.Timeout, httpx.TimeoutException), match="held"):
        http.get(URL, timeout=0.2)


def test_ports_and_calls_of_one_agent_have_circuits_of_their_own(http: Any, servers: Servers, calls: Client) -> None:
    servers.publish(health=1)
    with pytest.raises((requests.ConnectionError, httpx.ConnectError)):
        http.get("http://health.my_agent.outrider/", timeout=0.5)
    with pytest.raises(CallError):
        calls.call("my_Agent", "anything", timeout=0.5)  # a frame is no HTTP request
    assert http.get(URL).status_code == 200
    by_main = next(target for target in calls.targets() if "GET" in target.tallies)
    assert all(peer.breaker.is_closed for peer in by_main.peers)


def test_the_circuit_of_a_named_port_is_probed_at_that_port(http: Any, servers: Servers, calls: Client) -> None:
    servers.publish(health=1)
    with pytest.raises((requests.ConnectionError, httpx.ConnectError)):
        http.get("http://health.my_agent.outrider/", timeout=0.5)
    time.sleep(1)  # several probes; the main port would have answered them
    assert {peer.breaker.current_state for peer in calls.targets()[0].peers if not peer.breaker.is_closed} == {"open"}


def test_a_request_that_cannot_be_sent_is_blamed_on_nobody(http: Any, calls: Client) -> None:
    with pytest.raises((requests.RequestException, httpx.TransportError)):
        http.get(URL, headers={"x-a": "one\ntwo"})
    # requests looks at headers before any instance is chosen.
    assert all(peer.breaker.is_closed and not peer.in_flight for target in calls.targets() for peer in target.peers)


@pytest.mark.parametrize("make", [outrider.http.session, outrider.http.client], ids=["requests", "httpx"])
def test_a_proxy_is_for_other_hosts_only(
    make: Any, servers: Servers, calls: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with make(calls=calls) as http:
        assert http.get(URL).status_code == 200
        with pytest.raises((requests.ConnectionError, httpx.ConnectError)):
            http.get(f"http://127.0.0.1:{servers.ports[1]}/")


async def test_coroutines_share_a_client(servers: Servers, tmp_path: Path) -> None:
    calls = Client(runtime=tmp_path, settings=Settings(retry_budget=None))
    servers.kill(1)
    servers.mode(2, "503")
    async with outrider.http.async_client(timeout=5.0, calls=calls) as http:
        answers = await asyncio.gather(*(http.get(URL) for _ in range(20)))
        assert {(answer.status_code, answer.json()["name"]) for answer in answers} == {(200, "3")}
        servers.mode(2, "well")
        async with http.stream("POST", URL, content=b"x") as answer:
            assert json.loads(b"".join([part async for part in answer.aiter_bytes()]))["body"] == "x"
        for n in (2, 3):
            servers.mode(n, "hang")
        with pytest.raises(httpx.TimeoutException):
            await http.post(URL, timeout=0.3)
    calls.close()


@pytest.mark.parametrize(("make", "package"), [("session", "requests"), ("client", "httpx"), ("async_client", "httpx")])
def test_without_the_package_it_says_what_to_install(make: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"outrider.calls.http_{package}", raising=False)
    with pytest.raises(OutriderError, match=rf"{package} is not installed\n  pip install 'outrider\[http\]'"):
        getattr(outrider.http, make)()
