"""What a rollout tells: what it did, and why it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Set

from msgspec import Struct, field

from outrider.errors import ConsulError, RolloutFailed
from outrider.migration.changes import AgentChange
from outrider.migration.situation import Failed


class Report(Struct):
    """What a rollout did."""

    operations: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def gave_up(error: ConsulError, trouble_s: float, arrived: int) -> ConsulError:
    """The same error, with what it means for the rollout."""
    return type(error)(
        f"Consul has not worked for {trouble_s:.0f} s, {arrived} agents are rolled out: {error.message}",
        status=error.status,
        hint="every agent's documents are whole; a full disk on a Consul server or a lost quorum stops all writes: "
        "see the servers' log, mend it and run again",
    )


def failure(
    failed: Mapping[str, Failed], found: Mapping[str, AgentChange], arrived: Set[str], report: Report
) -> RolloutFailed:
    """Who is not well and why, what became of them, what was done and what not."""
    lines = [
        f"{name}: {step.instance} on {step.host} is not well: {step.why}; {name} was {_back(found[name])}"
        for name, step in failed.items()
    ]
    touched = arrived | failed.keys()
    left = [name for name, change in found.items() if change.kind != "unchanged" and name not in touched]
    lines.append(f"done: {len(arrived)} agents; not reached: {', '.join(left) or 'none'}")
    first = next(iter(failed.values()))
    hint = f"see `outrider logs {first.instance}` on {first.host}; mend it and run again"
    return RolloutFailed("\n".join(lines), done=report.operations, not_done=left, hint=hint)


def _back(change: AgentChange) -> str:
    if change.kind == "added":
        return "removed again"
    if "unfinished" in change.what:
        return "left as the run before, which was broken off, had left it"
    return "put back as it was"
