"""When is an HTTP/1 reply complete, what is its status, may the connection be used again. No input, no output."""

from __future__ import annotations

from msgspec import Struct

LARGEST_HEAD = 64 * 1024
LARGEST_BODY = 64 * 1024  # of a longer one only the status counts; the connection is closed instead of read


class Reply(Struct, frozen=True):
    """A complete reply. `reusable`: the connection may carry another request."""

    status: int
    reusable: bool


class BadReply(Exception):
    """What came is not HTTP."""


def read_reply(data: bytes | bytearray, closed: bool) -> Reply | None:
    """The reply in `data`, None while something is missing. `closed`: no more will come. Raises BadReply."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > LARGEST_HEAD or not data.startswith(b"HTTP/1."[: len(data)]):
            raise BadReply("not an HTTP reply")
        return None
    version, status, headers = _head(bytes(data[:end]))
    if 100 <= status < 200:
        return read_reply(data[end + 4 :], closed)
    keep = headers.get(b"connection", b"").lower()
    reusable = keep == b"keep-alive" or (version != b"HTTP/1.0" and keep != b"close")
    body = data[end + 4 :]
    if status in (204, 304):
        return Reply(status, reusable)
    if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
        return _with_body(status, reusable, _chunks_complete(body), len(body))
    if b"content-length" in headers:
        length = _number(headers[b"content-length"], 10)
        return _with_body(status, reusable, len(body) >= length, length)
    return _with_body(status, False, closed, len(body))


def _with_body(status: int, reusable: bool, complete: bool, length: int) -> Reply | None:
    if complete:
        return Reply(status, reusable)
    return Reply(status, False) if length > LARGEST_BODY else None


def _head(head: bytes) -> tuple[bytes, int, dict[bytes, bytes]]:
    first, *lines = head.split(b"\r\n")
    words = first.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
        raise BadReply("not an HTTP reply")
    headers = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    return words[0], _number(words[1], 10), headers


def _chunks_complete(body: bytes | bytearray) -> bool:
    """Whether the last, empty chunk and the blank line after it are there."""
    at = 0
    while (end := body.find(b"\r\n", at)) >= 0:
        size = _number(bytes(body[at:end]).partition(b";")[0].strip(), 16)
        if size == 0:
            return body[end:].startswith(b"\r\n\r\n") or body.find(b"\r\n\r\n", end + 2) >= 0
        at = end + 2 + size + 2
    return False


def _number(text: bytes, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        raise BadReply("not an HTTP reply") from None
    if number < 0:
        raise BadReply("not an HTTP reply")
    return number
