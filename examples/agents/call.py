"""Asking another agent, with a deadline for all of it: a call of Outrider's, or one HTTP POST.

`http.client` would cost 20 ms at the first POST.
"""

from __future__ import annotations

import json
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_REPLY_BYTES = 4 * 1024 * 1024


class CallError(Exception):
    """The call gave no usable answer."""


def call(agent: str, method: str, document: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """What the agent returns; which instance, and what if it dies, is the library's affair. Raises CallError."""
    import outrider

    try:
        answer: dict[str, Any] = outrider.call(agent, method, document, timeout=timeout_s, idempotent=True)
    except outrider.OutriderError as error:
        raise CallError(str(error)) from error
    return answer


def post_json(address: str, port: int, path: str, document: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """The JSON mapping that the agent answers. Raises CallError, at the latest after `timeout_s` seconds."""
    until = time.monotonic() + timeout_s
    body = json.dumps(document).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {address}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    try:
        with socket.create_connection((address, port), timeout=timeout_s) as sock:
            sock.sendall(head.encode("latin-1") + body)
            data = _read_all(sock, until)
    except TimeoutError:
        raise CallError(f"no answer from {address}:{port} within {timeout_s * 1000:.0f} ms") from None
    except OSError as error:
        raise CallError(f"{address}:{port}: {error.strerror or error}") from error
    return _document(data, f"{address}:{port}")


def _read_all(sock: socket.socket, until: float) -> bytes:
    """All bytes until the other side closes: each call has its own connection."""
    data = bytearray()
    while len(data) <= MAX_REPLY_BYTES:
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        sock.settimeout(left_s)
        chunk = sock.recv(65536)
        if not chunk:
            return bytes(data)
        data += chunk
    raise OSError(f"the reply is larger than {MAX_REPLY_BYTES} bytes")


def _document(data: bytes, where: str) -> dict[str, Any]:
    head, blank, body = data.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not blank or len(words) < 2 or not words[1].isdigit():
        raise CallError(f"{where} closed without an answer")
    try:
        document = json.loads(body)
    except ValueError:
        raise CallError(f"{where} answered {int(words[1])} with something other than JSON") from None
    if words[1] != b"200" or not isinstance(document, dict):
        reason = document.get("error", "") if isinstance(document, dict) else ""
        raise CallError(f"{where} answered {int(words[1])}: {reason}")
    return document
