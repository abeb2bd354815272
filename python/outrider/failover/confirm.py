"""Confirms the leases of this host again and again, so that they run out where that is no longer possible.

Asked is Consul, through the local agent. When that does not answer, the servers themselves are asked and, at the same
time, the other members of each lease, to let its holder go on (Patroni's fail-safe mode): all must. Their leave counts
more than a server's word that the lock is free, because none of them takes the lease while it lasts.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from outrider.errors import ConsulError
from outrider.failover.keeper import Held, LeaseKeeper
from outrider.failover.rules import CONFIRM_S, FAILSAFE_S, LEASE_S
from outrider.registry import leases
from outrider.registry.client import Consul
from outrider.registry.leases import Confirmation

log = logging.getLogger("outrider.lease")

# Consul may take. Two of these, the second beside the question to the other members, and a pause fit into a lease.
ANSWER_S = 0.3
SOLE_EVERY = 10  # a lease that nobody else may take is looked at each tenth time

# Agents with holder and epoch, and the hosts to ask; returns for each host the agents that it lets go on.
Promised = dict[str, frozenset[str]]
AskMembers = Callable[[dict[str, tuple[str, int]], frozenset[str]], Awaitable[Promised]]


class Confirming:
    """The loop. `servers`: Consul's, and `ask_members`: how other hosts are asked; None where there are none."""

    def __init__(
        self,
        keeper: LeaseKeeper,
        consul: Consul,
        servers: Consul | None,
        host: str,
        ask_members: AskMembers | None = None,
    ) -> None:
        self.failsafe = False
        self._keeper = keeper
        self._consul = consul
        self._servers = servers
        # A thread of its own: no other work on leases may make one run out.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="confirmation")
        self._host = host
        self._ask_members = ask_members
        self._round = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._forever(), name="lease confirmation")

    async def stop(self) -> None:
        """End with one last confirmation, so that the next shim has a whole lease of time to take over."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._confirm(leases_of_all=False)
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _forever(self) -> None:
        while True:
            began = time.monotonic()
            try:
                self._round += 1
                await self._confirm(leases_of_all=self._round % SOLE_EVERY == 0)
            except Exception:
                log.exception("a defect while confirming leases; the next round follows")
            self._expire()
            await asyncio.sleep(max(0.01, began + CONFIRM_S - time.monotonic()))

    async def _confirm(self, *, leases_of_all: bool) -> None:
        session = self._keeper.session.id
        asked = {agent: held for agent, held in self._keeper.held.items() if leases_of_all or not held.doc.sole}
        if not asked:
            return
        sent = time.monotonic()
        found = await self._asked(self._consul, asked, session)
        if found is None:
            sent = time.monotonic()
            found, allowed = await asyncio.gather(
                self._asked(self._servers, asked, session), self._go_on_without_consul()
            )
            # The servers free the locks of a host whose Consul agent is away; its holders go on while all members let
            # them, and lock again when it is back: a restart of Consul moves nothing.
            asked = {agent: held for agent, held in asked.items() if agent not in allowed}
        if found is None:
            return
        if self.failsafe and asked:
            self.failsafe = False
            log.info("Consul confirms leases again")
        for agent, held in asked.items():
            if self._keeper.held.get(agent) is not held:
                continue  # given up meanwhile
            if held.session != session or agent in found.lost:
                self._keeper.unlocked(agent, found.lost.get(agent, "it was locked by an earlier session"))
            else:
                self._keeper.confirmed(agent, sent)

    async def _asked(self, consul: Consul | None, agents: Iterable[str], session: str) -> Confirmation | None:
        """What Consul says; None if it says nothing in time."""
        if consul is None:
            return None
        ask = partial(leases.confirm, consul, agents, session, timeout_s=ANSWER_S)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, ask)
        except ConsulError as error:
            log.debug("leases are not confirmed: %s", error.message)
            return None

    async def _go_on_without_consul(self) -> frozenset[str]:
        """What every other member of a lease allows, goes on for one lease length more; the agents of these."""
        sent = time.monotonic()
        wanted = {
            agent: held
            for agent, held in self._keeper.held.items()
            if sent - held.confirmed_at <= FAILSAFE_S and self._others(held) and not held.doc.sole
        }
        if self._ask_members is None or not wanted:
            return frozenset()
        hosts = frozenset().union(*(self._others(held) for held in wanted.values()))
        promised = await self._ask_members(
            {agent: (held.instance, held.doc.epoch) for agent, held in wanted.items()}, hosts
        )
        going_on = set()
        for agent, held in wanted.items():
            allowed = all(agent in promised.get(host, ()) for host in self._others(held))
            if allowed and self._keeper.held.get(agent) is held:
                self._keeper.allowed(agent, sent)
                going_on.add(agent)
                if not self.failsafe:
                    self.failsafe = True
                    log.warning("Consul confirms no lease: holders go on while all other members let them")
        return frozenset(going_on)

    def _others(self, held: Held) -> frozenset[str]:
        """Hosts of the other members. A member of this host asks nobody: its shim is this one."""
        return frozenset(member.host for member in held.doc.members if member.host != self._host)

    def _expire(self) -> None:
        """What was not confirmed in time is over. Its process knows that by its own clock."""
        now = time.monotonic()
        for agent, held in list(self._keeper.held.items()):
            if held.until < math.inf and now >= held.until:
                self._keeper.lost(agent, f"nobody confirmed it for {LEASE_S:g} s")
