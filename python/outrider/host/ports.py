"""Which ports an instance gets: those it asks for, or free ones, and who holds a port that it cannot have."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import psutil
from msgspec import Struct, field

from outrider.errors import HostError

LOWEST = 20000
FALLBACK_EPHEMERAL = range(32768, 61000)
TRIES = 2000


class Moved(Struct, frozen=True):
    """A port that could not be had: its name, the number wanted, who holds that, and the number used instead."""

    name: str
    wanted: int
    owner: str
    chosen: int


class PortChoice(Struct, frozen=True):
    """Port name to number, and what had to move."""

    ports: dict[str, int] = field(default_factory=dict)
    moved: tuple[Moved, ...] = ()


def choose_ports(
    wanted: Mapping[str, int | Literal["auto"]],
    address: str,
    *,
    may_move: bool,
    keep: Mapping[str, int] | None = None,
    avoid: Iterable[int] = (),
    rng: random.Random | None = None,
) -> PortChoice:
    """Decide the ports of one instance.

    keep: ports it had before; an `auto` or moved port stays where it was as long as that is free
    avoid: ports that others will use though nobody listens there yet; a fixed port is taken all the same
    Raises HostError naming a taken port and its owner if `may_move` is False.
    """
    keep = keep or {}
    taken = {*avoid, *(port for port in wanted.values() if isinstance(port, int))}
    ports: dict[str, int] = {}
    moved: list[Moved] = []
    for name, port in wanted.items():
        if isinstance(port, int) and is_free(address, port):
            ports[name] = port
            continue
        if isinstance(port, int) and not may_move:
            raise HostError(
                f"port {port} ({name}) is taken by {owner_of(port)}",
                hint="stop that program, or give the agent another port in the fleet file",
            )
        before = keep.get(name)
        if before and before not in taken and is_free(address, before):
            ports[name] = before
        else:
            ports[name] = free_port(address, avoid=taken, rng=rng)
        taken.add(ports[name])
        if isinstance(port, int):
            moved.append(Moved(name, port, owner_of(port), ports[name]))
    return PortChoice(ports, tuple(moved))


def is_free(address: str, port: int) -> bool:
    """Whether a server could listen there now. Connections in TIME_WAIT do not count, as they do not for servers.

    Binding is enough to know: it fails beside any listener. We do not listen ourselves, somebody might connect.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise HostError(f"address {address}, port {port}: {error.strerror or error}") from error
    return True


def free_port(address: str = "127.0.0.1", *, avoid: Iterable[int] = (), rng: random.Random | None = None) -> int:
    """A port that is free, outside the range that the kernel gives to outgoing connections as long as there is one.

    A port inside that range can be taken by anybody's connection while the agent restarts.
    """
    rng = rng or random.Random()
    avoided = set(avoid)
    ephemeral = ephemeral_range()
    outside = [*range(LOWEST, ephemeral.start), *range(max(LOWEST, ephemeral.stop), 65536)]
    pools: tuple[list[int], ...] = (outside, list(ephemeral))
    for pool in pools:
        for port in rng.sample(pool, min(TRIES, len(pool))):
            if port not in avoided and is_free(address, port):
                return port
    raise HostError(f"no free port on {address}", hint="see what listens: ss -ltnp")


def ephemeral_range() -> range:
    """Ports that the kernel gives to outgoing connections."""
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except (OSError, ValueError):
        return FALLBACK_EPHEMERAL
    return range(int(low), int(high) + 1)


def owner_of(port: int) -> str:
    """Who listens on a TCP port, as "pid 123 (nginx)"; "unknown process" if we may not know."""
    listeners = _listeners(port)
    if port < 1024 and os.geteuid() != 0 and not listeners:
        return "the system (ports below 1024 need privileges)"
    for pid in filter(None, listeners):
        try:
            return f"pid {pid} ({psutil.Process(pid).name()})"
        except psutil.Error:
            return f"pid {pid}"
    return "unknown process"


def _listeners(port: int) -> list[int | None]:
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return []
    return [c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port]
