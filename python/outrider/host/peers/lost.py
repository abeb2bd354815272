"""Which of the hosts that are voted down are lost: nothing answers there any more, not even their kernel.

A vote says that a shim is silent, and so it is when it was killed or gets no CPU. This asks the host itself, at the
ports of its instances: a kernel that lives takes a connection or refuses it, whatever its processes do.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence

log = logging.getLogger("outrider.peers")

# A host that stands still for a second is not lost: it was silent for 0.5 s when it is voted down, and has 0.75 s more.
# Where a third of all packets is lost one such row in 30 has no answer, and no heartbeat may come before its end.
KNOCK_S = 0.15
UNANSWERED = 5
AGAIN_S, MOST_AGAIN_S = 0.5, 4.0  # doubles: every host of a fleet asks one whose shim was killed
# What tells of no answer. Any other error may be our own, as when no file can be opened.
SILENCE = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN)

Door = tuple[str, int]


class LostHosts:
    """Tell it who is voted down; `hosts` are those of them that are lost. Lives on the loop.

    doors: where a host takes connections, by address and port; who has none is never lost
    changed: called when `hosts` changed by itself, not by `follow`
    """

    def __init__(
        self,
        doors: Callable[[str], Sequence[Door]],
        changed: Callable[[], None],
        knock: Callable[[Door], Awaitable[bool]] | None = None,
    ) -> None:
        self._doors, self._changed = doors, changed
        self._knock = knock or answers
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.hosts: frozenset[str] = frozenset()

    def follow(self, down: Iterable[str]) -> None:
        """These hosts are voted down now; the others are heard, or were never there."""
        down = frozenset(down)
        for host in self._tasks.keys() - down:
            self._tasks.pop(host).cancel()
        for host in down - self._tasks.keys():
            self._tasks[host] = asyncio.get_running_loop().create_task(self._ask(host), name=f"is {host} lost")
        self.hosts &= down

    async def _ask(self, host: str) -> None:
        """Knock until the host is heard again: one whose shim was killed may be lost later."""
        asked = unanswered = 0
        pause_s = AGAIN_S
        while True:
            doors = self._doors(host)
            if doors:
                unanswered = 0 if await self._knock(doors[asked % len(doors)]) else unanswered + 1
                asked += 1
                self._found(host, lost=unanswered >= UNANSWERED)
            if not 0 < unanswered < UNANSWERED:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MOST_AGAIN_S)

    def _found(self, host: str, *, lost: bool) -> None:
        if lost == (host in self.hosts):
            return
        self.hosts = self.hosts | {host} if lost else self.hosts - {host}
        if lost:
            log.warning("peers: host %s is lost: it is not heard, and nothing answers there", host)
        else:
            log.info("peers: host %s is not lost: it answers, though its shim is not heard", host)
        self._changed()


async def answers(door: Door) -> bool:
    """Whether a host's kernel answers at that port, within KNOCK_S and not before: a refusal is an answer too."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(*door, type=socket.SOCK_STREAM)
        family, kind, protocol, _, where = found[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.setblocking(False)
            error = sock.connect_ex(where)
            # Nobody waits for the answer, so that it counts however late this shim itself is.
            await asyncio.sleep(KNOCK_S)
            if error == errno.EINPROGRESS:
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or _connected(sock)
    except OSError as defect:
        error = defect.errno or 0
    return error not in SILENCE


def _connected(sock: socket.socket) -> int:
    """0 if it is, else what says that no answer came."""
    try:
        sock.getpeername()
    except OSError:
        return errno.ETIMEDOUT
    return 0
