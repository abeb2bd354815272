"""The elected placer's desk: read everything anew, decide, and write by check-and-set under both locks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from outrider.errors import ConsulConflict
from outrider.failover.decision import Decision, Decisions, applied
from outrider.failover.placer import Picture, decide
from outrider.failover.sight import GOSSIP
from outrider.registry.client import Consul
from outrider.registry.kv import Change, Docs, Guard, list_docs, put_docs
from outrider.registry.layout import FLEET, HOSTS, PLACEMENT, RUN_LOCK, AgentDoc, HostDoc, PlacementDoc
from outrider.registry.lock import lock_state
from outrider.registry.services import critical, nodes

T = TypeVar("T")


class Outcome(Struct, frozen=True):
    """What a turn did. `blocked`: why nothing was done, if it was not; `refused`: agents that somebody else changed."""

    done: tuple[Decision, ...] = ()
    stuck: tuple[Decision, ...] = ()
    refused: tuple[str, ...] = ()
    blocked: str = ""
    lost_election: bool = False


class Desk:
    """`work` blocks; call it from a worker thread. `wall`: Unix seconds, for people to read."""

    def __init__(self, consul: Consul, wall: Callable[[], float] = time.time) -> None:
        self._consul = consul
        self._wall = wall

    def work(self, picture: Picture, elected: Guard) -> Outcome:
        """Decide by what Consul's leader says now and write it. `picture`: since when what is so. Raises ConsulError.

        While an operator's run is at work nothing is done: both would place the same agents. `elected` and the run lock
        are checked in each transaction, so that neither can change between the look and the write.
        """
        run = lock_state(self._consul, RUN_LOCK)
        if run.session:
            who = f"{run.holder.who} on {run.holder.host}" if run.holder else "somebody"
            return Outcome(blocked=f"a run of {who} is at work on the fleet; it goes first")
        # The lock's key stays after a run, and every fleet was published by one.
        guards = [elected, Guard(RUN_LOCK, index=run.index)] if run.index else [elected]
        placements = list_docs(self._consul, PLACEMENT, PlacementDoc)
        indexes = {name: index for name, (_, index) in placements.docs.items()}
        fresh = self._fresh(picture, placements)
        found = decide(fresh)
        if found.halted:
            return Outcome(blocked=found.halted)
        return self._write(fresh, found, indexes, guards)

    def _fresh(self, picture: Picture, placements: Docs[PlacementDoc]) -> Picture:
        """The same with documents read from the leader, and only those hosts lost that are lost now."""
        checks = critical(self._consul.get("/v1/health/state/critical"))
        there = nodes(self._consul)
        failed = {check.node for check in checks if check.check_id == GOSSIP}
        hosts = _plain(list_docs(self._consul, HOSTS, HostDoc))
        lost = {h: since for h, since in picture.lost.items() if h in failed or h not in there}
        # What fails since a moment ago counts against the whole, though nothing is moved for it yet.
        lost |= {host: picture.now for host in hosts if host in failed and host not in lost}
        return replace(
            picture,
            agents=_plain(list_docs(self._consul, FLEET, AgentDoc)),
            placements=_plain(placements),
            hosts=hosts,
            lost=lost,
        )

    def _write(self, fresh: Picture, found: Decisions, indexes: dict[str, int], guards: list[Guard]) -> Outcome:
        by_agent: dict[str, list[Decision]] = defaultdict(list)
        for decision in found.made:
            if decision.target is not None:
                by_agent[decision.agent].append(decision)
        done: list[Decision] = []
        refused: list[str] = []
        lost_election = False
        for name, made in by_agent.items():
            doc = applied(fresh.placements[name], fresh.agents[name], made, self._wall())
            try:
                put_docs(self._consul, [Change(PLACEMENT + name, doc, indexes[name])], guards)
                done += made
            except ConsulConflict as error:
                refused.append(name)
                if any(guard.key in error.message for guard in guards):
                    lost_election = guards[0].key in error.message
                    break
        stuck = tuple(decision for decision in found.made if decision.target is None)
        return Outcome(tuple(done), stuck, tuple(refused), lost_election=lost_election)


def _plain(docs: Docs[T]) -> dict[str, Any]:
    return {name: doc for name, (doc, _) in docs.docs.items()}
