"""Where an instance listens for calls: a Unix socket on its own host, its port `call` elsewhere."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from outrider.calls.connection import LOOK_S, LOST
from outrider.discovery.records import Instance
from outrider.errors import ConnectionLost
from outrider.fleet.ports import CALL

SOCKET = "socket"
LONGEST = 107  # bytes that the kernel takes for the name of a Unix socket


def socket_path(runtime: Path, instance: str) -> Path:
    """Of an instance of this host."""
    return runtime / "calls" / instance / SOCKET


def local_socket(instance: Instance, runtime: Path, here: str = "") -> Path | None:
    """Its Unix socket, if it is of this host as far as is known, and listens there. `here`: the name of this host.

    While an instance moves away its socket is still here, and one of the same name already serves elsewhere.
    """
    here = here or os.environ.get("OUTRIDER_HOST", "")
    path = socket_path(runtime, instance.instance)
    return path if here in ("", instance.host) and path.exists() else None


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name of `path` that the kernel takes, however long it is. Raises OSError if its folder is not there."""
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def port_of(instance: Instance) -> int:
    """The port that takes calls: `call`, or the only one that it has said."""
    return instance.ports.get(CALL, 0) or instance.port


def named_port(instance: Instance, name: str) -> int:
    """Its port of that name, the main one for an empty name; 0 if it has none."""
    return instance.ports.get(name, 0) if name else instance.port


def connect(
    instance: Instance,
    runtime: Path,
    timeout_s: float,
    tls: ssl.SSLContext | None,
    lost: Callable[[], bool] | None = None,
) -> socket.socket:
    """A connection to it. Raises OSError, and ConnectionLost once its host is `lost` that was not before."""
    if path := local_socket(instance, runtime):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_s)
            with short_name(path) as name:
                sock.connect(name)
        except BaseException:
            sock.close()
            raise
        return sock
    sock = _reach(instance.address, port_of(instance), timeout_s, lost or (lambda: True))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(sock, server_hostname=instance.host) if tls else sock


def _reach(address: str, port: int, timeout_s: float, lost: Callable[[], bool]) -> socket.socket:
    """As socket.create_connection, but it looks around while no answer comes."""
    until, lost_before = time.monotonic() + timeout_s, lost()
    error = OSError(f"{address} is nowhere")
    for family, kind, protocol, _, where in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            code = sock.connect_ex(where)
            if code == errno.EINPROGRESS:
                while not _is_decided(sock, until - time.monotonic()):
                    if not lost_before and lost():
                        raise ConnectionLost(LOST, safe=True)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                sock.settimeout(max(0.001, until - time.monotonic()))
                return sock
            error = OSError(code, os.strerror(code))
            sock.close()
        except BaseException:
            sock.close()
            raise
    raise error


def _is_decided(sock: socket.socket, left_s: float) -> bool:
    """Whether it is connected or refused, after a while. Raises TimeoutError if no time is left."""
    if left_s <= 0:
        raise TimeoutError
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(min(left_s, LOOK_S) * 1000))
