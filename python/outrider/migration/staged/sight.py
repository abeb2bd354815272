"""What is known at the moment when the next action is decided, and what may follow. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from outrider.migration.staged.records import Outcome
from outrider.registry.layout import AgentDoc, PlacementDoc
from outrider.registry.leases import LeaseDoc


class Counts(Struct, frozen=True):
    """What an instance says of the calls that it answered since its process began; buckets as outrider.calls.tally."""

    calls: int = 0
    failed: int = 0
    buckets: tuple[int, ...] = ()


class Copied(Struct, frozen=True):
    """The last round of copying state ahead: bytes that it moved, and what the whole is."""

    moved_bytes: int
    total_bytes: int
    seconds: float = 0.0


class Sight(Struct, frozen=True):
    """What is known. Times are seconds.

    lease, locked: as last written, and whether a session holds its lock
    waited_s: since the step was begun, as this driver saw it
    passing: instance to how long it has passed where it is placed
    trouble: instance to why it does not
    died: how the target's process ended since the step was begun, empty if it has not
    unwell: instance to for how long it has not passed
    unheld_s: for how long the target has not held the lease
    known_holder: instances that are registered as holders: they pass with a process, as a cold standby does without
    lost: hosts that are lost
    counts: instance to what it says of its calls
    at_begin: what the target had counted when the step was begun; None: not asked yet
    waited_for: what the target had counted when the calls that had waited for the cutover were answered; None: not yet
    aside: calls of the target that were slow, if they were, while its machine was slow for the source too
    worst: of its other calls those between the two looks that saw the most slow ones
    probes: looks at the target since the step was begun: (bad, all)
    vram: measurements of the GPU memory that the target uses, since the step was begun: (too much, all)
    copied, copy_error: what came of copying state ahead in this step
    others: the migrations that this one comes after, by id: how each ended, None while it has not
    refused: why it cannot be begun now
    new_key: a secret that nobody had before
    """

    placement: PlacementDoc
    agent: AgentDoc
    lease: LeaseDoc | None = None
    locked: bool = False
    waited_s: float = 0.0
    passing: Mapping[str, float] = field(default_factory=dict)
    trouble: Mapping[str, str] = field(default_factory=dict)
    died: str = ""
    unwell: Mapping[str, float] = field(default_factory=dict)
    unheld_s: float = 0.0
    known_holder: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    counts: Mapping[str, Counts] = field(default_factory=dict)
    at_begin: Counts | None = None
    waited_for: Counts | None = None
    aside: Counts = Counts()
    worst: Counts = Counts()
    probes: tuple[int, int] = (0, 0)
    vram: tuple[int, int] = (0, 0)
    copied: Copied | None = None
    copy_error: str = ""
    others: Mapping[str, Outcome | None] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    new_key: str = ""

    def holds(self, instance: str) -> bool:
        """Whether that instance holds the lease, and Consul its lock for it."""
        lease = self.lease
        return lease is not None and self.locked and lease.state == "held" and lease.holder == instance


class Begin(Struct, frozen=True):
    """Begin a step: one transaction of what it writes and the journal's entry. `doc` None: it writes nothing."""

    step: str
    doc: PlacementDoc | None = None
    said: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)


class GoBack(Struct, frozen=True):
    """From here on everything is undone."""

    why: str
    evidence: dict[str, Any] = field(default_factory=dict)


class Hold(Struct, frozen=True):
    """Nothing can be done that is safe: closed, and a person decides."""

    why: str
    doc: PlacementDoc


class End(Struct, frozen=True):
    """It is over. `doc`: the placement that remains; None if it is as it was."""

    outcome: Outcome
    said: str
    doc: PlacementDoc | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


class Copy(Struct, frozen=True):
    """Copy the state ahead, while the source works on."""


class Wait(Struct, frozen=True):
    """Nothing to do but to wait. `person`: it is a person who is waited for."""

    why: str
    person: bool = False


Action = Begin | GoBack | Hold | End | Copy | Wait


class Done(Struct, frozen=True):
    """A step has had its effect. `said`: worth to be written down with the next one."""

    said: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)


class Failed(Struct, frozen=True):
    """It never will."""

    why: str
    evidence: dict[str, Any] = field(default_factory=dict)


Probe = Done | Failed | Wait | Copy
