"""HTTP/1.1 as bytes: heads in, replies out. Pure; the sockets are in serving.py.

Written here because `http.server` and asyncio cost 20 to 40 ms of CPU per start, and a host starts dozens of agents.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Body = bytes | dict[str, Any]

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 4 * 1024 * 1024
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    422: "Unprocessable Content",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
    507: "Insufficient Storage",
}


class Refused(Exception):
    """A request that is not served. `status` is the HTTP status; `message` and `hint` go to the caller."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.hint = hint

    def document(self) -> dict[str, Any]:
        """What the caller reads."""
        return {"error": self.message, **({"hint": self.hint} if self.hint else {})}


class Head:
    """A request without its body."""

    __slots__ = ("content_type", "expects", "keep_alive", "length", "method", "path")

    def __init__(self, method: str, path: str, length: int, content_type: str, keep_alive: bool, expects: bool) -> None:
        self.method = method
        self.path = path
        self.length = length
        self.content_type = content_type
        self.keep_alive = keep_alive
        self.expects = expects


def take_head(buffer: bytearray) -> Head | None:
    """Take one request's head off the front of `buffer`; None if it is not complete yet. Raises Refused."""
    while buffer[:2] == b"\r\n":
        del buffer[:2]  # some clients send an empty line after a body
    end = buffer.find(b"\r\n\r\n")
    if end > MAX_HEAD_BYTES or (end < 0 and len(buffer) > MAX_HEAD_BYTES):
        raise Refused(431, f"the head of the request is larger than {MAX_HEAD_BYTES} bytes")
    if end < 0:
        return None
    lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    del buffer[: end + 4]
    method, path, version = _request_line(lines[0])
    headers = _headers(lines[1:])
    if "transfer-encoding" in headers:
        raise Refused(411, "Transfer-Encoding is not understood", "send Content-Length")
    connection = headers.get("connection", "").lower()
    return Head(
        method=method,
        path=path.partition("?")[0],
        length=_length(headers.get("content-length", "0")),
        content_type=headers.get("content-type", "application/octet-stream"),
        keep_alive=connection == "keep-alive" or (version == "HTTP/1.1" and connection != "close"),
        expects=headers.get("expect", "").lower() == "100-continue",
    )


def _request_line(line: str) -> tuple[str, str, str]:
    words = line.split(" ")
    if len(words) != 3 or not words[1].startswith("/"):
        raise Refused(400, f"not an HTTP request line: {line[:80]!r}", "METHOD /path HTTP/1.1")
    if words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise Refused(505, f"{words[2][:20]!r} is not understood", "speak HTTP/1.1")
    return words[0], words[1], words[2]


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Refused(400, f"not a header line: {line[:80]!r}", "Name: value")
        name = name.lower()
        if name == "content-length" and headers.get(name, value.strip()) != value.strip():
            raise Refused(400, "two different Content-Length headers")
        headers[name] = value.strip()
    return headers


def _length(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise Refused(400, f"Content-Length is not a number: {text[:20]!r}")
    if len(text) > 12 or int(text) > MAX_BODY_BYTES:
        raise Refused(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return int(text)


def reply(status: int, body: Body, *, keep_alive: bool, content_type: str = "application/octet-stream") -> bytes:
    """A whole reply. A mapping is sent as JSON, bytes as `content_type`."""
    if not isinstance(body, bytes):
        body, content_type = json.dumps(body).encode() + b"\n", "application/json"
    head = (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n"
    )
    return head.encode("latin-1") + body


def parse_json(body: bytes) -> dict[str, Any]:
    """The mapping in a body; an empty body is an empty mapping. Raises Refused."""
    if not body:
        return {}
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}", 'for example {"n": 1000}') from error
    if not isinstance(document, dict):
        raise Refused(400, f"the body is a JSON {type(document).__name__}, a mapping is expected")
    return document
