"""What to do next for one agent on the way to its goal: rules in order, the first that has something to say decides.

Nothing is remembered between two steps: all follows from the documents as they are, as they were when the rollout
reached the agent, and from what Consul says. So a run that was killed is continued by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec.structs import replace

from outrider.fleet.placement import Slot
from outrider.migration.changes import Documents, arrived, wanted_of
from outrider.migration.situation import Done, Failed, Situation, Step, Wait, Write
from outrider.migration.store import Seen
from outrider.registry.layout import Placed

STEADY_S = 1.0  # serving for so long counts as well
WELL = ("passing", "warning")
# Five starts by then at the default back-off. Its needs, which it may have ended for, are well before it is started.
CRASH_LOOP_S = 10.0


Rule = Callable[[Situation], Step | None]


def next_step(situation: Situation) -> Step:
    """The next step for one agent. Pure."""
    for rule in ARRIVING if situation.goal.agent else LEAVING:
        if step := rule(situation):
            return step
    return Done(_left(situation))


def describe(s: Situation) -> Step | None:
    """The document first, and every instance that is new. What runs stays at the version that it is placed at."""
    now = {placed.instance: placed for placed in s.docs.instances}
    new = [slot for slot in s.goal.slots if slot.instance not in now]
    if s.goal.agent and s.goal.agent.agent.mode == "singleton" and (elsewhere := _still_there(s, new)):
        # Exactly one may serve: the process elsewhere ends before this one starts.
        if s.waited_s < s.drain_limit_s:
            return Wait(elsewhere)
        return Failed(elsewhere[0], s.goal.slots[0].host, "its process on the old host did not end in time")
    placed = [now.get(slot.instance) or wanted_of(slot, s.version, None) for slot in s.goal.slots]
    # An instance that an operator stopped has nothing to wait for.
    placed = [wanted_of(s.slots[p.instance], s.version, p) if p.state == "stopped" else p for p in placed]
    surplus = [p for p in s.docs.instances if p.instance not in s.slots]
    wanted = Documents(s.goal.agent, s.docs.placement)
    if s.docs.placement is None or [*placed, *surplus] != list(s.docs.instances):
        wanted = wanted.placed([*placed, *surplus])
    return Write(wanted) if wanted != s.docs else None


def settle(s: Situation) -> Step | None:
    """What this rollout started must be well before anything else is touched."""
    unwell = [placed for placed in _started(s) if not is_well(placed, s.seen(placed))]
    if not unwell:
        return None
    ending = [placed for placed in unwell if _keeps_ending(s, placed)]
    if s.waited_s < s.limit_s and not ending:
        return Wait(tuple(placed.instance for placed in unwell))
    first = (ending or unwell)[0]
    return Failed(first.instance, first.host, _why(first, s.seen(first)))


def _keeps_ending(s: Situation, placed: Placed) -> bool:
    """True if its process was started again and again and has ended each time: more waiting will not mend that."""
    seen = s.seen(placed)
    ended = seen is not None and seen.version == placed.version and seen.output.startswith("exited:")
    return ended and s.waited_s >= CRASH_LOOP_S


def replace_one(s: Situation) -> Step | None:
    """One instance that is not as wanted becomes so."""
    for placed in s.docs.instances:
        slot = s.slots.get(placed.instance)
        if slot is None:
            continue
        wanted = wanted_of(slot, s.version, placed)
        if wanted == placed:
            continue
        rest = [other for other in s.docs.instances if other.instance != placed.instance]
        if s.goal.agent and s.goal.agent.agent.mode == "singleton" and placed.host != wanted.host:
            return Write(s.docs.placed(rest))
        return Write(s.docs.placed(wanted if p.instance == placed.instance else p for p in s.docs.instances))
    return None


def retire(s: Situation) -> Step | None:
    """Instances that the goal does not have are drained and then dropped; what was never told to run needs no drain."""
    surplus = [placed for placed in s.docs.instances if placed.instance not in s.slots]
    if not surplus:
        return None
    if any(placed.state == "run" for placed in surplus):
        return Write(s.docs.placed(_stopped(s.docs.instances, surplus)))
    if serving := _serving(s, surplus):
        return Wait(serving)
    return Write(s.docs.placed(placed for placed in s.docs.instances if placed not in surplus))


def order(s: Situation) -> Step | None:
    """Documents at the goal may still list instances in another order; that starts nothing."""
    wanted = arrived(s.goal, s.docs)
    return Write(wanted) if wanted != s.docs else None


def leave(s: Situation) -> Step | None:
    """An agent that goes is drained while Consul still says what it is."""
    if s.docs == Documents():
        return None
    running = [placed for placed in s.docs.instances if placed.state == "run"]
    if running:
        return Write(s.docs.placed(_stopped(s.docs.instances, running)))
    if serving := _serving(s, s.docs.instances):
        return Wait(serving)
    return Write(Documents())


def gone(s: Situation) -> Step | None:
    """Its processes have ended when its shims have deregistered them."""
    left = _left(s)
    return Wait(left) if left and s.waited_s < s.drain_limit_s else None


ARRIVING: tuple[Rule, ...] = (describe, settle, replace_one, retire, order, gone)
LEAVING: tuple[Rule, ...] = (leave, gone)


def is_well(placed: Placed, seen: Seen | None) -> bool:
    """True if it has served at the version that it is placed at, long enough to believe it.

    In `warning` it lacks another agent: putting this one back would mend nothing.
    """
    return bool(seen and seen.version == placed.version and seen.status in WELL and seen.well_s >= STEADY_S)


def _started(s: Situation) -> Iterator[Placed]:
    """Instances that run because of this rollout, or of the one that it continues."""
    before = {placed.instance: (placed.version, placed.host) for placed in s.original.instances}
    continued = any(placed.version != s.version for placed in s.docs.instances if placed.instance in s.slots)
    for placed in s.docs.instances:
        ours = before.get(placed.instance) != (placed.version, placed.host)
        if (
            placed.state == "run"
            and placed.instance in s.slots
            and (ours or (continued and placed.version == s.version))
        ):
            yield placed


def _still_there(s: Situation, slots: Iterable[Slot]) -> tuple[str, ...]:
    moving = {slot.instance: slot.host for slot in slots}
    return tuple(name for name, host in s.sight if name in moving and host != moving[name])


def _serving(s: Situation, leaving: Sequence[Placed]) -> tuple[str, ...]:
    """Those of `leaving` that callers may still reach, unless that takes too long."""
    serving = (placed.instance for placed in leaving if (seen := s.seen(placed)) and seen.status != "critical")
    return tuple(serving) if s.waited_s < s.drain_limit_s else ()


def _left(s: Situation) -> tuple[str, ...]:
    """Instances that Consul still knows where the documents no longer place them."""
    placed = {(p.instance, p.host) for p in s.docs.instances}
    return tuple(p.instance for p in s.original.instances if (p.instance, p.host) in s.sight.keys() - placed)


def _stopped(instances: Iterable[Placed], which: Sequence[Placed]) -> list[Placed]:
    return [replace(placed, state="stopped") if placed in which else placed for placed in instances]


def _why(placed: Placed, seen: Seen | None) -> str:
    if seen is None:
        return f"it never registered in Consul: does the shim of {placed.host} run?"
    if seen.version != placed.version:
        return f"it still runs version {seen.version}: {seen.output}"
    return seen.output or f"its check is {seen.status}"
