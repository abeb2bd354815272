"""Asking the shim of this host, over its Unix socket."""

from __future__ import annotations

import http.client
import os
import socket
from pathlib import Path
from typing import TypeVar

import msgspec

from outrider.errors import OutriderError, ShimUnreachable, UnknownAgent

T = TypeVar("T")


class _Failure(msgspec.Struct):
    error: str
    hint: str = ""


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket. An address holds 107 bytes; through the folder's descriptor any path fits."""

    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("shim", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)


class ShimClient:
    """The shim whose runtime folder is `runtime`. Raises ShimUnreachable if none answers there."""

    def __init__(self, runtime: Path) -> None:
        self._path = runtime / "outriderd.sock"

    def get(self, path: str, kind: type[T]) -> T:
        """GET a JSON answer."""
        return msgspec.json.decode(self.request("GET", path).read(), type=kind)

    def post(self, path: str, kind: type[T], timeout_s: float = 30.0) -> T:
        """POST, with a JSON answer."""
        return msgspec.json.decode(self.request("POST", path, timeout_s).read(), type=kind)

    def request(self, method: str, path: str, timeout_s: float | None = 10.0) -> http.client.HTTPResponse:
        """One request; the answer may be read as it comes. Raises the error that the shim answers with."""
        connection = _Connection(self._path, timeout_s)
        try:
            connection.request(method, path)
            reply = connection.getresponse()
        except OSError as error:
            raise ShimUnreachable(
                f"no shim answers at {self._path}: {error.strerror or error}",
                hint="is it running? `outrider doctor` looks; --runtime names another folder",
            ) from error
        if reply.status >= 400:
            raise _error(reply.status, reply.read())
        return reply


def _error(status: int, body: bytes) -> OutriderError:
    try:
        failure = msgspec.json.decode(body, type=_Failure)
    except msgspec.MsgspecError:
        return OutriderError(f"the shim answers with {status}: {body.decode(errors='replace')[:200]}")
    kind = UnknownAgent if status == 404 else OutriderError
    return kind(failure.error, hint=failure.hint)
