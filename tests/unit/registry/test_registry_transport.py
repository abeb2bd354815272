"""Time-outs, tokens, typed errors and kept connections of the transport."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from outrider.errors import ConsulConflict, ConsulDenied, ConsulError, ConsulUnreachable
from outrider.registry import line as line_module
from outrider.registry.address import Address
from outrider.registry.client import connect
from outrider.registry.transport import KEPT_CONNECTIONS, Transport


def test_the_token_is_in_the_header_and_never_in_the_url(fake_consul, answers) -> None:
    fake = fake_consul(answers())
    tokens = ["its own", "a parameter", "python-consul2's parameter", "python-consul2's header"]
    client = connect(replace(fake.address, token=tokens[0]))
    client.get("/v1/agent/self")
    client.get("/v1/agent/self", params={"token": tokens[1]})
    client.kv.put("a", "b", token=tokens[2])
    client.acl.self(token=tokens[3])
    assert [asked.headers["x-consul-token"] for asked in fake.asked] == tokens
    assert not [asked.target for asked in fake.asked if "token=" in asked.target]


def test_a_time_out_is_the_calls_own(fake_consul, answers) -> None:
    release = threading.Event()
    fake = fake_consul(answers(before=lambda: release.wait(5)))
    began = time.monotonic()
    with pytest.raises(ConsulUnreachable, match="timed out"):
        connect(fake.address).put("/v1/kv/a", b"", timeout_s=0.1)
    assert time.monotonic() - began < 4
    release.set()


def test_an_answer_that_drips_is_bounded_as_a_whole() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not stop.wait(0.05):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        began = time.monotonic()
        transport = Transport(address_of(server))
        with pytest.raises(ConsulUnreachable, match="timed out"):
            transport.request("PUT", "/v1/a", timeout_s=0.3)
        assert time.monotonic() - began < 10
        stop.set()
        thread.join()


def test_requests_reuse_one_connection(fake_consul, answers) -> None:
    fake = fake_consul(answers(body=b"true"))
    client = connect(fake.address)
    for _ in range(5):
        client.put("/v1/kv/a", b"x" * 10)
        client.get("/v1/kv/a")
    assert len({asked.port for asked in fake.asked}) == 1


def test_many_threads_share_the_transport(fake_consul, answers) -> None:
    fake = fake_consul(lambda asked: answers(body=asked.target.encode())(asked))
    client = connect(fake.address)
    with ThreadPoolExecutor(30) as pool:
        bodies = list(pool.map(lambda n: client.get(f"/v1/{n}").body, range(300)))
    assert bodies == [f"/v1/{n}".encode() for n in range(300)]
    assert len(client.http._idle) <= KEPT_CONNECTIONS


def test_a_write_survives_a_kept_connection_that_consul_closed(fake_consul, answers) -> None:
    fake = fake_consul(answers(hang_up=True))
    client = connect(fake.address)
    client.put("/v1/kv/a")
    wait_until_dropped(client.http._idle[0])
    client.put("/v1/kv/a")
    assert len(fake.asked) == 2


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
def test_a_read_that_got_no_whole_answer_is_asked_once_more_and_a_write_is_not(fake_consul, answers, raw) -> None:
    fake = fake_consul(answers(raw=raw))
    client = connect(fake.address)
    with pytest.raises(ConsulUnreachable):
        client.get("/v1/a")
    assert len(fake.asked) == 2
    with pytest.raises(ConsulUnreachable):
        client.put("/v1/a")
    assert len(fake.asked) == 3


def test_the_second_try_of_a_read_counts(fake_consul, answers) -> None:
    fake = fake_consul(lambda asked: answers(raw=b"" if len(fake.asked) == 1 else None, body=b"ok")(asked))
    assert connect(fake.address).get("/v1/a").body == b"ok"


def test_nothing_listening_is_unreachable_with_its_exit_code() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = address_of(server)
    with pytest.raises(ConsulUnreachable, match=f"{address} does not answer: connection refused") as caught:
        connect(address).get("/v1/a")
    assert caught.value.exit_code == 3
    assert caught.value.status == 0


def test_what_speaks_no_http_is_unreachable(fake_consul, answers) -> None:
    fake = fake_consul(answers(raw=b"SSH-2.0-OpenSSH\r\n\r\n"))
    with pytest.raises(ConsulUnreachable):
        connect(fake.address).get("/v1/a")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(301, ConsulError), (400, ConsulError), (401, ConsulDenied), (403, ConsulDenied), (409, ConsulConflict)]
    + [(status, ConsulError) for status in (404, 413, 429, 500, 503)],
)
def test_every_status_that_is_no_success_is_a_typed_error(fake_consul, answers, status, kind) -> None:
    client = connect(fake_consul(answers(status=status, body=b"rpc error: No cluster leader")).address)
    with pytest.raises(ConsulError, match="No cluster leader") as caught:
        client.put("/v1/kv/a")
    assert type(caught.value) is kind
    assert caught.value.status == status
    with pytest.raises(ConsulError):
        client.delete("/v1/kv/a")


def test_python_consul2_raises_our_errors_too(fake_consul, answers) -> None:
    client = connect(fake_consul(answers(status=500, body=b"boom")).address)
    with pytest.raises(ConsulError, match="boom"):
        client.catalog.nodes()


def test_an_answer_without_end_is_refused_and_does_not_reach_the_next_request(
    fake_consul, answers, monkeypatch
) -> None:
    monkeypatch.setattr(line_module, "BODY_MAX_BYTES", 1000)
    fake = fake_consul(lambda asked: answers(body=b"x" * 5000 if "big" in asked.target else b"small")(asked))
    client = connect(fake.address)
    with pytest.raises(ConsulError, match="more than 1000 bytes"):
        client.get("/v1/big")
    assert client.get("/v1/small").body == b"small"


def test_a_waiting_line_is_cut_from_another_thread(fake_consul, answers) -> None:
    asked, release = threading.Event(), threading.Event()
    fake = fake_consul(answers(before=lambda: (asked.set(), release.wait(10))))
    client = connect(fake.address)
    line = client.http.line()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get, "/v1/a", timeout_s=10, line=line)
        assert asked.wait(5)
        began = time.monotonic()
        line.cut()
        with pytest.raises(ConsulUnreachable, match="cut off here"):
            waiting.result(5)
        assert time.monotonic() - began < 5
    with pytest.raises(ConsulUnreachable, match="cut off here"):
        client.get("/v1/a", line=line)
    release.set()


def address_of(server: socket.socket) -> Address:
    return Address(port=server.getsockname()[1])


def wait_until_dropped(line) -> None:
    deadline = time.monotonic() + 5
    while not line_module._readable(line._http.sock):
        assert time.monotonic() < deadline
        time.sleep(0.005)
