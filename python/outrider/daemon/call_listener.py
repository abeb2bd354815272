"""The socket on which callers of this host report: datagrams, from processes of our own agents' users only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec

from outrider.calls.endpoint import short_name
from outrider.calls.reports import ProcessReport, reports_socket
from outrider.errors import HostError
from outrider.host.access import passable_folder

log = logging.getLogger("outrider.shim")

CREDENTIALS = struct.Struct("iII")
MOST_BYTES = 1 << 17
MOST_AT_ONCE = 100

_decode = msgspec.msgpack.Decoder(ProcessReport).decode


class CallListener:
    """Raises HostError if it cannot listen. `trusted` says whether a user may report."""

    def __init__(self, runtime: Path, take: Callable[[ProcessReport], None], trusted: Callable[[int], bool]) -> None:
        self._take = take
        self._trusted = trusted
        self._path = reports_socket(runtime)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            passable_folder(self._path.parent)
            self._path.unlink(missing_ok=True)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            with short_name(self._path) as name:
                self._socket.bind(name)
            self._path.chmod(0o666)  # who sent is looked at with each datagram
        except OSError as error:
            self._socket.close()
            raise HostError(f"cannot listen on {self._path}: {error.strerror}") from error
        asyncio.get_running_loop().add_reader(self._socket, self._ready)

    def close(self) -> None:
        """Reports are lost from now on; callers do not mind."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _ready(self) -> None:
        for _ in range(MOST_AT_ONCE):  # others get their turn
            try:
                data, extra, _, _ = self._socket.recvmsg(MOST_BYTES, socket.CMSG_SPACE(CREDENTIALS.size))
            except OSError:
                return
            sender = next((CREDENTIALS.unpack(d) for _, kind, d in extra if kind == socket.SCM_CREDENTIALS), None)
            if sender is None or not self._trusted(sender[1]):
                log.debug("a report of user %s is not taken", sender and sender[1])
                continue
            with contextlib.suppress(msgspec.MsgspecError):
                report = _decode(data)
                # Whatever it says, it is the process that sent it.
                self._take(msgspec.structs.replace(report, pid=sender[0]))


def trusted_users(pids: Callable[[], list[int]]) -> Callable[[int], bool]:
    """Root, our own user, and the users of the processes that we started."""

    def trusted(user: int) -> bool:
        return user in (0, os.geteuid()) or any(_user_of(pid) == user for pid in pids())

    return trusted


def _user_of(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
