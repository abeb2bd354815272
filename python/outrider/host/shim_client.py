"""Asking the shim of this host, over its Unix socket."""

from __future__ import annotations

import http.client
import os
import socket
from pathlib import Path
from typing import TypeVar

import msgspec

from outrider.errors import ConsulDenied, ConsulUnreachable, OutriderError, ShimUnreachable, UnknownAgent

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
        self.path = runtime / "outriderd.sock"

    def get(self, path: str, kind: type[T], timeout_s: float = 10.0) -> T:
        """GET a JSON answer."""
        return self._decoded("GET", path, kind, timeout_s)

    def post(self, path: str, kind: type[T], timeout_s: float = 30.0) -> T:
        """POST, with a JSON answer."""
        return self._decoded("POST", path, kind, timeout_s)

    def request(self, method: str, path: str, timeout_s: float | None = 10.0) -> http.client.HTTPResponse:
        """One request; the answer may be read as it comes. Raises the error that the shim answers with."""
        connection = _Connection(self.path, timeout_s)
        try:
            connection.request(method, path)
            reply = connection.getresponse()
            body = reply.read() if reply.status >= 400 else b""
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error
        if reply.status >= 400:
            raise _error(reply.status, body)
        return reply

    def _decoded(self, method: str, path: str, kind: type[T], timeout_s: float) -> T:
        reply = self.request(method, path, timeout_s)
        try:
            return msgspec.json.decode(reply.read(), type=kind)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        except msgspec.MsgspecError as error:
            hint = "are the shim and this command of the same release? `outrider doctor` looks"
            raise OutriderError(f"the shim's answer to {path} is not readable: {error}", hint=hint) from error

    def _unreachable(self, error: Exception) -> ShimUnreachable:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        hint = "`outrider doctor` tells what is wrong here; --runtime names another shim's folder"
        return ShimUnreachable(f"no shim answers at {self.path}: {reason}", hint=hint)


def _error(status: int, body: bytes) -> OutriderError:
    try:
        failure = msgspec.json.decode(body, type=_Failure)
    except msgspec.MsgspecError:
        return OutriderError(f"the shim answers with {status}: {body.decode(errors='replace')[:200]}")
    kinds: dict[int, type[OutriderError]] = {403: ConsulDenied, 404: UnknownAgent, 503: ConsulUnreachable}
    return kinds.get(status, OutriderError)(failure.error, hint=failure.hint)
