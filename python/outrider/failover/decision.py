"""What the placer decides about an instance, what that makes of a placement, and how it is said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from outrider.registry.layout import AgentDoc, Handover, PlacementDoc


class Decision(Struct, frozen=True):
    """What to do about one instance. `target` None: no host can take it, and `reason` says what each lacks.

    how: move (it leaves and arrives at once), add (it arrives beside itself), hand over (the lease, to where it has
        arrived, from the holder of `epoch`), drop (it leaves, having arrived)
    """

    agent: str
    instance: str
    source: str
    target: str | None
    reason: str
    how: Literal["move", "add", "hand over", "drop"] = "move"
    why: Literal["lost", "drained", "failback", "arrived"] = "lost"
    entry: str = ""
    epoch: int = 0

    @property
    def starts(self) -> str:
        """The host where a process starts by it; empty if none does."""
        return self.target if self.target and self.how in ("move", "add") else ""


class Decisions(Struct, frozen=True):
    """All decisions, in the order to carry out. `halted`: why there are none although hosts are lost."""

    made: tuple[Decision, ...] = ()
    halted: str = ""


def applied(doc: PlacementDoc, agent: AgentDoc, made: Iterable[Decision], since: float) -> PlacementDoc:
    """A placement after decisions about its agent. `since`: Unix seconds.

    What moves keeps its version while there is a document of that, as after a migration that went back.
    """
    instances, reasons = list(doc.instances), []
    handover: Handover | None = None
    for decision in made:
        at = next((p for p in instances if (p.instance, p.host) == (decision.instance, decision.source)), None)
        if at is None or decision.target is None:
            continue
        index = instances.index(at)
        home = "" if decision.target == at.home else at.home or at.host
        version = at.version if agent.at(at.version) else agent.version
        there = replace(at, host=decision.target, entry=decision.entry, version=version, home=home)
        if decision.how == "drop":
            del instances[index]
        elif decision.how == "move":
            instances[index] = there
        elif decision.how == "hand over":
            handover = Handover(decision.instance, decision.target, decision.epoch)
        else:
            instances.insert(index + 1, there)
        reasons.append(said(decision))
    if not reasons:
        return doc
    return PlacementDoc(doc.agent, tuple(instances), "; ".join(reasons), since, handover)


def said(decision: Decision) -> str:
    """A decision in words."""
    match decision.how, decision.target:
        case _, None:
            return f"{decision.instance} stays on {decision.source}: {decision.reason}"
        case "drop", _:
            return f"{decision.instance} leaves {decision.source}: {decision.reason}"
        case "hand over", target:
            return f"{decision.instance} passes its lease from {decision.source} to {target}: {decision.reason}"
        case "add", target:
            return f"{decision.instance} goes to {target}, then leaves {decision.source}: {decision.reason}"
        case _, target:
            return f"{decision.instance} moves from {decision.source} to {target}: {decision.reason}"
