"""What has happened so far, as the journal tells it: from entries to where a migration is. Pure."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from outrider.migration.staged.records import Entry, Journal, Outcome, Question, Resolution

Direction = Literal["forward", "back", "held"]
CUTOVERS = ("hand over", "close", "shift")  # the steps with which a cutover begins
JUDGED = "verify"
ACCEPT_LOSS = "accept loss"


class Story(Struct, frozen=True):
    """Where a migration is.

    step: the last one that was begun, empty before the first; began: its entry
    direction: forward, back once it is being undone, held when that could not be finished
    reason: why it goes back, or is held
    asked_back, resolution: what people asked for that has not been acted on yet
    loss: what somebody has given up for good, until it is made good after all
    approved_by: who agreed to the cutover before it began, each once, in order
    verdict_approved: somebody has said, while it was judged as it is now, that without a verdict it is well enough
    evidence: what the steps of this direction noted, by step
    unknown: what its order says that this version of Outrider does not know
    """

    step: str = ""
    began: Entry | None = None
    direction: Direction = "forward"
    reason: str = ""
    paused: str = ""
    asked_back: str = ""
    resolution: Resolution | None = None
    loss: str = ""
    approved_by: tuple[str, ...] = ()
    verdict_approved: bool = False
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcome: Outcome | None = None
    unknown: tuple[str, ...] = ()

    @property
    def cut_over(self) -> bool:
        """Whether the cutover was begun."""
        return any(name in self.evidence for name in CUTOVERS)

    @property
    def asks(self) -> Question | None:
        """What people may approve now."""
        if self.outcome or self.direction != "forward":
            return None
        if self.step == JUDGED:
            return "verdict"
        return None if self.cut_over else "cutover"


def story_of(journal: Journal) -> Story:
    """Fold the entries, in order."""
    step, reason, paused, asked_back, loss = "", "", "", "", ""
    began: Entry | None = None
    direction: Direction = "forward"
    resolution: Resolution | None = None
    approved: list[str] = []
    verdict_approved = may_be_lost = False
    evidence: dict[str, dict[str, Any]] = {}
    outcome: Outcome | None = None
    for entry in journal.entries:
        match entry.what:
            case "begun":
                step, began, resolution, verdict_approved = entry.step, entry, None, False
                # Once the old one may take the lease without it, only the new one that passes it back makes it good.
                may_be_lost = step == ACCEPT_LOSS or (may_be_lost and step != "hand back")
                loss = loss if may_be_lost else ""
                evidence[entry.step] = entry.evidence
            case "rollback":
                direction, step, began, reason = "back", "", entry, entry.said
                asked_back, resolution = "", None
            case "held":
                direction, step, began, reason = "held", "", entry, entry.said
                loss = loss if may_be_lost else ""
            case "resolved":
                resolution = entry.resolution
                loss = entry.said if resolution == "accept_loss" else loss
                # To keep the new one is to go on where the cutover ended; to go back is to try that again.
                direction = "forward" if resolution == "keep" else "back"
                step, began = ("resolved", entry) if resolution == "keep" else ("", entry)
            case "approved" if entry.approves == "verdict":
                verdict_approved = step == JUDGED
            case "approved":
                late = any(name in evidence for name in CUTOVERS)
                approved += [] if late or entry.by in approved else [entry.by]
            case "paused":
                paused = entry.by
            case "resumed":
                paused = ""
            case "asked_back":
                asked_back = entry.said or f"asked for by {entry.by}"
            case "ended":
                outcome = entry.outcome
            case "planned":
                pass
    return Story(
        step=step,
        began=began,
        direction=direction,
        reason=reason,
        paused=paused,
        asked_back=asked_back,
        resolution=resolution,
        loss=loss,
        approved_by=tuple(approved),
        verdict_approved=verdict_approved,
        evidence=evidence,
        outcome=outcome,
        unknown=journal.unknown,
    )
