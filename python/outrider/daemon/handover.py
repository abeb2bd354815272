"""A lease passes from an instance of this host to the one that its placement names, without a call cut off.

The holder accepts nothing new, which its callers wait out; what is under way is finished; its state moves, where the
placement asks for that; then the lease is given up for the other to take. It goes on if any of that fails or takes
too long: a hand-over is a wish, never a loss.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from outrider.calls.channel import open_channel
from outrider.calls.frames import Reply
from outrider.calls.tls import client_context
from outrider.daemon import state_copy
from outrider.daemon.state_copy import Way
from outrider.discovery.records import Instance
from outrider.errors import CallError, NoInstance, OutriderError
from outrider.failover.keeper import LeaseKeeper
from outrider.fleet.ports import CALL
from outrider.host.config import Config
from outrider.host.move_keys import NO_KEY
from outrider.host.publisher import instance_of_local
from outrider.host.state import Local
from outrider.registry.layout import MoveDoc, PlacementDoc
from outrider.registry.leases import Member

log = logging.getLogger("outrider.lease")

FINISH_S = 2.0  # for what is under way: for so long callers wait, so no longer than most of them would
STATE_S = 1.5  # and for the last of its state
ASK_S = 0.25
POLL_S = 0.002


class _Work(Struct):
    """What an agent's health method says of its calls."""

    running: int = 0
    waiting: int = 0


class Handovers:
    """Of one host. `follow` runs on the event loop.

    well: finds an instance on a host, if it is there and well
    key_of: as MoveKeys says it
    failed: why a holder here went on, by agent, until it is asked for another hand-over or none
    """

    def __init__(
        self,
        keeper: LeaseKeeper,
        config: Config,
        well: Callable[[str, Member], Instance | None],
        key_of: Callable[[PlacementDoc], MoveDoc | None],
    ) -> None:
        self.failed: dict[str, str] = {}
        self._keeper = keeper
        self._config = config
        self._host = config.host
        self._well = well
        self._key_of = key_of
        self._tried: dict[str, int] = {}  # agent to the epoch that was asked to pass on
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """What was closed is open again, for the next shim to decide."""
        for task in self._tasks:
            task.cancel()

    def follow(self, local: Local, placement: PlacementDoc) -> None:
        """Begin if the placement asks the holder here to pass its lease on, and the other can take it."""
        agent, held, asked = local.doc.name, self._keeper.held.get(local.doc.name), placement.handover
        if asked is None:
            self._tried.pop(agent, None)
            self.failed.pop(agent, None)
            return
        if held is None or (held.instance, held.doc.epoch) != (local.instance, asked.epoch):
            return
        heir = Member(asked.instance, asked.host)
        own = Member(local.instance, self._host)
        if heir == own or CALL not in local.doc.agent.ports or self._tried.get(agent) == asked.epoch:
            return
        # Who is no member yet may not take it, and who is not well will not; without its key the state would stay here.
        move = self._key_of(placement)
        if move is not None and heir in held.doc.members and self._well(agent, heir) is not None:
            self._tried[agent] = asked.epoch
            passing = self._pass_on(local, heir, move)
            task = asyncio.get_running_loop().create_task(passing, name=f"hand over {agent}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, local: Local, heir: Member, move: MoveDoc) -> None:
        agent, why = local.doc.name, "a defect; see its log"
        self._keeper.close(agent, local.instance)
        try:
            why = await self._prepared(local, heir, move)
        except Exception:
            log.exception("%s: a defect while it hands over its lease", local.instance)
        finally:  # also when this shim stops: the next one decides
            if why:
                self._keeper.reopen(agent, local.instance)
        if why:
            self.failed[agent] = why
            log.warning("%s goes on: %s", local.instance, why)
        else:
            reason = f"handed over to {heir.instance} on {heir.host}"
            self._keeper.give_up(agent, local.instance, reason, heir=heir)

    async def _prepared(self, local: Local, heir: Member, move: MoveDoc) -> str:
        """Do what must be done before the other may take the lease; why it may not, empty if it may."""
        if not await self._finishes(local, time.monotonic() + FINISH_S):
            return f"what it works on was not done within {FINISH_S:g} s"
        if move is NO_KEY:
            return ""
        if heir.host not in move.hosts:
            return f"its state moves between {' and '.join(move.hosts)}, and not to {heir.host}"
        try:
            await self._move_state(local, heir, move.key)
        except OutriderError as error:
            return f"its state does not move to {heir.instance} on {heir.host}: {error.message}"
        return ""

    async def _move_state(self, local: Local, heir: Member, key: str) -> None:
        """Raises CallError and HostError."""
        config, at = self._config, self._well(local.doc.name, heir)
        if at is None:
            raise NoInstance(f"{heir.instance} is not well any more")
        way = Way(key, config.runtime_dir, client_context(config.calls_tls) if config.calls_tls else None, config.host)
        source = instance_of_local(local, config.host, config.address)
        copied = await state_copy.move(way, source, at, STATE_S)
        log.info("the state of %s is with %s on %s: %d of %d bytes in %.3f s", local.instance, heir.instance, heir.host,
                 copied.bytes, copied.total_bytes, copied.seconds)  # fmt: skip

    async def _finishes(self, local: Local, until: float) -> bool:
        """Whether nothing is under way any more by then, as its process says."""
        instance = instance_of_local(local, self._host, self._config.address)
        while (now := time.monotonic()) < until:
            try:
                channel = await open_channel(instance, "outriderd", self._config.runtime_dir, ASK_S, None)
                try:
                    while (now := time.monotonic()) < until:
                        answer, _ = await channel.exchange("health", None, "", 0, now + ASK_S, now)
                        if _is_idle(answer):
                            return True
                        await asyncio.sleep(POLL_S)
                finally:
                    channel.close()
            except CallError:
                await asyncio.sleep(POLL_S)
        return False


def _is_idle(answer: object) -> bool:
    if not isinstance(answer, Reply):
        return False
    work = msgspec.msgpack.decode(answer.body, type=_Work)
    return work.running == work.waiting == 0
