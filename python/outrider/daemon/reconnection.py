"""After a host was lost, or this one was cut off: ask Consul anew, and bring its agent together with the others."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence

from outrider.errors import ConsulError

log = logging.getLogger("outrider.shim")

# What is asked through this host's Consul agent may hang on the lost host's server, unnoticed, for as long as a
# question waits, 10 s. So it is asked anew when gossip knows of the loss, and when a new leader is elected; not by all
# hosts at once.
ASK_AGAIN_S = (1.5, 5.0)
SPREAD_S = 0.5
# Votes that change to and fro do not make the leases be asked for without end.
LEASES_EVERY_S = 1.0
# An election takes three seconds: who does not reach Consul for so many ticks has lost more than a leader.
REJOIN_TICKS = 3


class Reconnection:
    """Of one host. Lives on the event loop.

    leases: asks for the leases anew; others: the same for all else that is followed
    join: shows the Consul agent of this host one of another host, by its address
    """

    def __init__(
        self,
        leases: Callable[[], None],
        others: Sequence[Callable[[], None]],
        join: Callable[[str], Awaitable[None]],
    ) -> None:
        self.lost: frozenset[str] = frozenset()
        self._leases, self._others, self._join = leases, others, join
        self._loop = asyncio.get_running_loop()
        self._timers: list[asyncio.TimerHandle] = []
        self._leases_at = float("-inf")
        self._failures = 0
        self._joining: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Ask no more."""
        for timer in self._timers:
            timer.cancel()
        if self._joining:
            self._joining.cancel()

    def lost_are(self, hosts: frozenset[str]) -> None:
        """Which hosts the peers do not hear now."""
        more = hosts - self.lost
        self.lost = hosts
        if not more:
            return
        if self._loop.time() - self._leases_at >= LEASES_EVERY_S:
            self._leases_at = self._loop.time()
            self._leases()
        for timer in self._timers:
            timer.cancel()
        self._timers = [self._loop.call_later(at + random.uniform(0, SPREAD_S), self._ask) for at in ASK_AGAIN_S]

    def reached(self, consul: bool, heard: Iterable[str]) -> None:
        """Once a second: whether Consul's leader answered, and the addresses of the hosts that are heard.

        Serf looks for members that failed only twice a minute: an agent that lost all others, because its host heard
        nobody for a while, knows no leader until then.
        """
        self._failures = 0 if consul else self._failures + 1
        known = sorted(heard)
        if self._failures >= REJOIN_TICKS and known and (self._joining is None or self._joining.done()):
            self._joining = self._loop.create_task(self._joined(random.choice(known)), name="rejoin")

    async def _joined(self, address: str) -> None:
        try:
            await self._join(address)
        except ConsulError as error:
            log.debug("Consul does not join %s: %s", address, error.message)

    def _ask(self) -> None:
        for ask in self._others:
            ask()
