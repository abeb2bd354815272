"""Addresses that a socket takes, of hosts that may be known by a name: names are looked up beside the loop."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket

log = logging.getLogger("outrider.peers")

# A name that is not found, or that moved, is asked for again after so long.
AGAIN_S = 30.0

Where = tuple[str, int]


class Addresses:
    """Looks names up once, and again every half minute while they are used."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._found: dict[str, Where | None] = {}
        self._asked: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, address: str) -> Where | None:
        """Where to send to; None for a name that is not found yet."""
        if address in self._found and address not in self._asked:
            return self._found[address]
        if not address or _literal(address):
            self._found[address] = (address, self._port) if address else None
            return self._found[address]
        loop = asyncio.get_running_loop()
        if loop.time() - self._asked.get(address, -AGAIN_S) >= AGAIN_S:
            self._asked[address] = loop.time()
            task = loop.create_task(self._look_up(address), name=f"peers look up {address}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return self._found.get(address)

    async def _look_up(self, address: str) -> None:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(address, self._port, type=socket.SOCK_DGRAM)
        except OSError as error:
            log.debug("peers: %s is not found: %s", address, error)
            return
        best = min(found, key=lambda info: info[0] != socket.AF_INET)
        self._found[address] = (str(best[4][0]), self._port)


def _literal(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
