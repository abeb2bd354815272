"""One agent in the middle of a rollout, and the steps that may follow."""

from __future__ import annotations

from msgspec import Struct

from outrider.fleet.placement import Slot
from outrider.migration.changes import Documents, Goal
from outrider.migration.store import Seen, Sight
from outrider.registry.layout import Placed

DRAIN_EXTRA_S = 15.0  # beyond the agent's own stop time-out, for the shim and Consul to say that it is gone


class Situation(Struct, frozen=True):
    """One agent in the middle of a rollout.

    original: its documents when the rollout reached it
    docs: as they are now
    waited_s: since they were last written, or since another agent of its stage made progress
    """

    goal: Goal
    original: Documents
    docs: Documents
    sight: Sight
    waited_s: float
    limit_s: float

    @property
    def slots(self) -> dict[str, Slot]:
        """The goal's slots by instance."""
        return {slot.instance: slot for slot in self.goal.slots}

    @property
    def version(self) -> str:
        """The version to arrive at."""
        return self.goal.agent.version if self.goal.agent else ""

    @property
    def drain_limit_s(self) -> float:
        """How long an instance may take to leave."""
        agent = self.original.agent or self.docs.agent
        return DRAIN_EXTRA_S + (agent.agent.stop_timeout_s if agent else 0.0)

    def seen(self, placed: Placed) -> Seen | None:
        """What Consul says of an instance where it is placed."""
        return self.sight.get((placed.instance, placed.host))


class Write(Struct, frozen=True):
    """Write these documents."""

    docs: Documents


class Wait(Struct, frozen=True):
    """Nothing to do but to wait for these instances."""

    instances: tuple[str, ...]


class Failed(Struct, frozen=True):
    """An instance did not get well in time."""

    instance: str
    host: str
    why: str


class Done(Struct, frozen=True):
    """The agent has arrived. `left`: instances that should be gone and that Consul still knows."""

    left: tuple[str, ...] = ()


Step = Write | Wait | Failed | Done
