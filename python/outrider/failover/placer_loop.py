"""The placer of each shim: watches, stands for election, and while elected decides and writes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

from outrider.discovery.feed import View
from outrider.errors import ConsulDenied, ConsulError
from outrider.failover.decision import Decision, said
from outrider.failover.desk import Desk, Outcome
from outrider.failover.election import Election
from outrider.failover.placer import Picture, Spot, decide, pairs
from outrider.failover.sight import GOSSIP, Sight
from outrider.registry.client import Consul
from outrider.registry.kv import Guard
from outrider.registry.layout import PLACER_LOCK
from outrider.registry.leases import Lease

log = logging.getLogger("outrider.placer")

TICK_S = 0.25
DENIED_S = 60.0
# Beyond an agent's own time to start: it may wait for its needs and for a slot of its host.
PATIENCE_S = 30.0


class Placer:
    """`view` is asked for what the feed knows. Runs on the event loop; Consul is called in `executor`."""

    def __init__(
        self,
        consul: Consul,
        executor: Executor,
        host: str,
        view: Callable[[], View],
        *,
        leases: Callable[[], Mapping[str, Lease]] = dict,
        heard: Callable[[], frozenset[str]] = frozenset,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        checks: Sequence[str] = (GOSSIP,),
    ) -> None:
        self._executor = executor
        self._view = view
        self._leases = leases
        self._heard = heard
        self._clock = clock
        self._wall = wall
        self._election = Election(consul, PLACER_LOCK, host, clock, checks)
        self._desk = Desk(consul, wall)
        self._starting: dict[Spot, float] = {}
        self._said: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._denied_until = float("-inf")
        self.sight = Sight()
        self.stuck: tuple[Decision, ...] = ()
        self.counts: Counter[str] = Counter()

    @property
    def elected(self) -> bool:
        """Whether this shim decides."""
        return self._election.is_ours

    @property
    def holder(self) -> str:
        """The host whose shim decides, as last seen; empty if none is known."""
        return self._election.holder

    @property
    def guard(self) -> Guard:
        """What fails a write of one that was elected and is no longer."""
        return self._election.guard

    def picture(self) -> Picture:
        """What this shim sees now, and since when."""
        return self.sight.picture(self._view(), self._clock())

    def start(self) -> None:
        """Start looking. Nothing is decided before the feed has read the documents."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="placer")

    async def stop(self) -> None:
        """Stop, and let another shim decide."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._executor, self._election.resign)

    async def _run(self) -> None:
        while True:
            try:
                await self._turn()
            except ConsulDenied as error:
                self._say("rights", f"this shim cannot place: {error.message}")
                self._denied_until = self._clock() + DENIED_S
                self._election.lose()
            except ConsulError as error:
                log.debug("placer: %s", error.message)
            except Exception:
                log.exception("a defect of the placer; it goes on")
            await asyncio.sleep(TICK_S)

    async def _turn(self) -> None:
        view, now = self._view(), self._clock()
        if not (view.documents_read and view.nodes) or now < self._denied_until:
            return
        self.sight.update(view, now, self._heard())
        self._starting = {
            spot: until for spot, until in self._starting.items() if now < until and spot not in self.sight.passing
        }
        loop = asyncio.get_running_loop()
        decided_before = self.elected
        if not await loop.run_in_executor(self._executor, self._election.campaign):
            self.stuck = ()
            return
        if not decided_before:
            self._take_over_starts(view, now)
        if not self._has_work(view):
            self._settled()
            return
        leases = {name: lease.doc for name, lease in self._leases().items()}
        picture = self.sight.picture(view, now, self._starting, leases, self._wall())
        foreseen = decide(picture)
        if any(decision.target for decision in foreseen.made):
            outcome = await loop.run_in_executor(self._executor, self._desk.work, picture, self._election.guard)
        else:  # as on a host that stays drained for days: the leader need not be asked again and again
            outcome = Outcome(stuck=foreseen.made, blocked=foreseen.halted)
        self._take_note(outcome, view, now)

    def _take_over_starts(self, view: View, now: float) -> None:
        """What an earlier placer has let start counts, or an election would double the starts under way."""
        for name, doc in view.placements.items():
            until = now + doc.since + self._patience_s(view, name) - self._wall()
            moved = [placed for placed in doc.instances if placed.home and placed.state == "run"]
            self._starting |= {(placed.instance, placed.host): until for placed in moved if until > now}

    def _patience_s(self, view: View, name: str) -> float:
        agent = view.agents.get(name)
        return PATIENCE_S + (agent.agent.start_timeout_s if agent else 0.0)

    def _has_work(self, view: View) -> bool:
        """Whether a decision is possible at all: most of the time nothing is lost, drained or away from home."""
        if self.sight.lost or any(doc.closed for doc in view.hosts.values()):
            return True
        return any(self._is_moving(view, name) for name in view.placements)

    def _is_moving(self, view: View, name: str) -> bool:
        instances = view.placements[name].instances
        returns = name in view.agents and view.agents[name].agent.failback_s is not None
        return any(pairs(instances)) or (returns and any(placed.home for placed in instances))

    def _take_note(self, outcome: Outcome, view: View, now: float) -> None:
        if outcome.blocked:
            self._say("blocked", outcome.blocked)
        else:
            self._said.pop("blocked", None)
            self.stuck = outcome.stuck
        for decision in outcome.done:
            log.warning("%s", said(decision))
            self.counts[decision.why] += 1
            if decision.starts:
                self._starting[decision.instance, decision.starts] = now + self._patience_s(view, decision.agent)
        for decision in outcome.stuck:
            self._say(decision.instance, said(decision))
        if outcome.lost_election:
            self._election.lose()

    def _settled(self) -> None:
        self.stuck = ()
        self._said.clear()

    def _say(self, about: str, text: str) -> None:
        """Once, until it is otherwise."""
        if self._said.get(about) != text:
            self._said[about] = text
            log.warning("%s", text)
