"""Where an instance listens for calls: a Unix socket on its own host, its port `call` elsewhere."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outrider.discovery.records import Instance
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


def connect(instance: Instance, runtime: Path, timeout_s: float, tls: ssl.SSLContext | None) -> socket.socket:
    """A connection to it. Raises OSError."""
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
    sock = socket.create_connection((instance.address, port_of(instance)), timeout=timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(sock, server_hostname=instance.host) if tls else sock
