"""A lease passes from an instance of this host to the one that its placement names, without a call cut off.

The holder accepts nothing new, which its callers wait out; what is under way is finished; then the lease is given up
for the other to take. It goes on if that takes too long: a hand-over is a wish, never a loss.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from outrider.calls.channel import open_channel
from outrider.calls.frames import Reply
from outrider.errors import CallError
from outrider.failover.keeper import LeaseKeeper
from outrider.fleet.ports import CALL
from outrider.host.publisher import instance_of_local
from outrider.host.state import Local
from outrider.registry.layout import Handover
from outrider.registry.leases import Member

log = logging.getLogger("outrider.lease")

FINISH_S = 2.0  # for what is under way: for so long callers wait, so no longer than most of them would
ASK_S = 0.25
POLL_S = 0.002


class _Work(Struct):
    """What an agent's health method says of its calls."""

    running: int = 0
    waiting: int = 0


class Handovers:
    """Of one host. `follow` runs on the event loop. `well` says whether an instance on a host is there and well."""

    def __init__(
        self, keeper: LeaseKeeper, host: str, address: str, runtime_dir: Path, well: Callable[[str, Member], bool]
    ) -> None:
        self._keeper = keeper
        self._host = host
        self._address = address
        self._runtime = runtime_dir
        self._well = well
        self._tried: dict[str, int] = {}  # agent to the epoch that was asked to pass on
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """What was closed is open again, for the next shim to decide."""
        for task in self._tasks:
            task.cancel()

    def follow(self, local: Local, asked: Handover | None) -> None:
        """Begin if the placement asks the holder here to pass its lease on, and the other can take it."""
        agent, held = local.doc.name, self._keeper.held.get(local.doc.name)
        if asked is None or held is None or (held.instance, held.doc.epoch) != (local.instance, asked.epoch):
            return
        heir = Member(asked.instance, asked.host)
        own = Member(local.instance, self._host)
        if heir == own or CALL not in local.doc.agent.ports or self._tried.get(agent) == asked.epoch:
            return
        # Who is no member yet may not take it, and who is not well will not.
        if heir in held.doc.members and self._well(agent, heir):
            self._tried[agent] = asked.epoch
            task = asyncio.get_running_loop().create_task(self._pass_on(local, heir), name=f"hand over {agent}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, local: Local, heir: Member) -> None:
        agent, began = local.doc.name, time.monotonic()
        finished = False
        self._keeper.close(agent, local.instance)
        try:
            finished = await self._finishes(local, began + FINISH_S)
        except Exception:
            log.exception("%s: a defect while it hands over its lease", local.instance)
        finally:  # also when this shim stops: the next one decides
            if not finished:
                self._keeper.reopen(agent, local.instance)
        if finished:
            self._keeper.give_up(agent, local.instance, f"handed over to {heir.instance} on {heir.host}")
        else:
            log.warning("%s goes on: what it works on was not done within %g s", local.instance, FINISH_S)

    async def _finishes(self, local: Local, until: float) -> bool:
        """Whether nothing is under way any more by then, as its process says."""
        instance = instance_of_local(local, self._host, self._address)
        while (now := time.monotonic()) < until:
            try:
                channel = await open_channel(instance, "outriderd", self._runtime, ASK_S, None)
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
