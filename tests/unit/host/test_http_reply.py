"""When a reply is complete, however it arrives."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.host.http_reply import LARGEST_HEAD, BadReply, Reply, read_reply

COMPLETE = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", Reply(200, True)),
    (b"HTTP/1.1 200 OK\r\ncontent-length:4\r\nConnection: Close\r\n\r\nbody", Reply(200, False)),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nbody", Reply(200, False)),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\nbody", Reply(200, True)),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 999\r\n\r\n", Reply(304, True)),
    (
        b"HTTP/1.1 503\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
        Reply(503, True),
    ),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: yes\r\n\r\n", Reply(200, True)),
    (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", Reply(201, True)),
]


@pytest.mark.parametrize(("data", "reply"), COMPLETE)
def test_complete_only_with_its_last_byte(data: bytes, reply: Reply) -> None:
    assert read_reply(data, closed=False) == reply
    for end in range(len(data)):
        assert read_reply(data[:end], closed=False) is None, data[:end]


def test_without_a_length_it_lasts_until_the_end() -> None:
    data = b"HTTP/1.1 200 OK\r\n\r\nsome"
    assert read_reply(data, closed=False) is None
    assert read_reply(data, closed=True) == Reply(200, False)


def test_of_a_long_body_the_status_is_enough() -> None:
    assert read_reply(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", closed=False) == Reply(200, False)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 OK 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * LARGEST_HEAD,
    ],
)
def test_what_is_not_http_is_refused(data: bytes) -> None:
    with pytest.raises(BadReply):
        read_reply(data, closed=False)


@given(st.binary(max_size=200), st.booleans())
def test_no_input_does_anything_else(data: bytes, closed: bool) -> None:
    for prefix in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        with contextlib.suppress(BadReply):
            read_reply(prefix + data, closed)
