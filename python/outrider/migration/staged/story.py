"""What has happened so far, as the journal tells it: from entries to where a migration is. Pure."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from outrider.migration.staged.records import Entry, Journal, Outcome, Resolution

Direction = Literal["forward", "back", "held"]
ACCEPT_LOSS = "accept loss"


class Story(Struct, frozen=True):
    """Where a migration is.

    step: the last one that was begun, empty before the first; began: its entry
    direction: forward, back once it is being undone, held when that could not be finished
    reason: why it goes back, or is held
    asked_back, resolution: what people asked for that has not been acted on yet
    loss: what somebody has given up for good, until it is made good after all
    approved_by: each once, in order; approved_since_step: somebody has since the step was begun
    evidence: what the steps of this direction noted, by step
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
    approved_since_step: bool = False
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcome: Outcome | None = None


def story_of(journal: Journal) -> Story:
    """Fold the entries, in order."""
    step, reason, paused, asked_back, loss = "", "", "", "", ""
    began: Entry | None = None
    direction: Direction = "forward"
    resolution: Resolution | None = None
    approved: list[str] = []
    since_step = may_be_lost = False
    evidence: dict[str, dict[str, Any]] = {}
    outcome: Outcome | None = None
    for entry in journal.entries:
        match entry.what:
            case "begun":
                step, began, resolution, since_step = entry.step, entry, None, False
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
            case "approved":
                approved += [] if entry.by in approved else [entry.by]
                since_step = True
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
        approved_since_step=since_step,
        evidence=evidence,
        outcome=outcome,
    )
