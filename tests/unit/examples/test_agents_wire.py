"""HTTP from bytes: what is understood, what is refused and how."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import MAX_BODY_BYTES, MAX_HEAD_BYTES, Refused, parse_json, reply, take_head


def test_a_whole_head_is_taken_and_the_rest_stays() -> None:
    buffer = bytearray(b"POST /echo?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET")
    head = take_head(buffer)
    assert head
    assert (head.method, head.path, head.length, head.keep_alive) == ("POST", "/echo", 5, True)
    assert buffer == b"helloGET"


@pytest.mark.parametrize("size", range(len(b"GET / HTTP/1.1\r\nA: b\r\n\r")))
def test_an_incomplete_head_is_waited_for(size: int) -> None:
    buffer = bytearray(b"GET / HTTP/1.1\r\nA: b\r\n\r"[:size])
    before = bytes(buffer)
    assert take_head(buffer) is None
    assert bytes(buffer) == before


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [("1.1", "", True), ("1.1", "close", False), ("1.0", "", False), ("1.0", "Keep-Alive", True)],
)
def test_keep_alive_follows_version_and_header(version: str, connection: str, keep_alive: bool) -> None:
    line = f"Connection: {connection}\r\n" if connection else ""
    head = take_head(bytearray(f"GET / HTTP/{version}\r\n{line}\r\n".encode()))
    assert head
    assert head.keep_alive is keep_alive


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("nonsense\r\n\r\n", 400),
        ("GET nowhere HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\n\r\n", 505),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n folded: x\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: ²\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (f"POST / HTTP/1.1\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n", 413),
        ("POST / HTTP/1.1\r\nContent-Length: " + "9" * 5000 + "\r\n\r\n", 413),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        ("GET / HTTP/1.1\r\nA: " + "x" * MAX_HEAD_BYTES + "\r\n\r\n", 431),
        ("x" * (MAX_HEAD_BYTES + 1), 431),
    ],
)
def test_what_is_not_understood_is_refused(text: str, status: int) -> None:
    with pytest.raises(Refused) as refused:
        take_head(bytearray(text.encode("latin-1")))
    assert refused.value.status == status
    assert refused.value.document()["error"]


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    for text in (data, data + b"\r\n\r\n", b"GET / HTTP/1.1\r\n" + data + b"\r\n\r\n"):
        with contextlib.suppress(Refused):  # any other error fails the test
            take_head(bytearray(text))


@given(st.binary(max_size=300))
def test_no_body_does_more_than_be_refused(data: bytes) -> None:
    with contextlib.suppress(Refused):
        assert isinstance(parse_json(data), dict)


def test_deep_json_is_refused_not_fatal() -> None:
    with pytest.raises(Refused):
        parse_json(b"[" * 200_000)


def test_a_reply_says_its_length() -> None:
    head, _, body = reply(200, {"a": 1}, keep_alive=False).partition(b"\r\n\r\n")
    assert json.loads(body) == {"a": 1}
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"Connection: close" in head
