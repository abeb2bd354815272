"""What to do next about a migration: a pure function of its journal and of what is true now.

Nothing is remembered between two decisions, so whichever shim decides goes on where the last one was. Forward it goes
step by step; from any step before the end it can go back. A way back that cannot be finished is held, closed: a held
agent can be mended, and two that write cannot.
"""

from __future__ import annotations

from typing import Any

from outrider.migration.staged import edits
from outrider.migration.staged.records import Spec
from outrider.migration.staged.rollback import back
from outrider.migration.staged.sight import Action, Begin, Done, End, Failed, GoBack, Sight, Wait
from outrider.migration.staged.steps import APPROVAL, FORWARD, Step, begun_with, following_steps
from outrider.migration.staged.story import Story
from outrider.registry.layout import AgentDoc

REFUSED_S = 10.0  # what cannot be begun now may be so for a moment, as while a shim is restarted


def next_action(spec: Spec, story: Story, sight: Sight, now_unix: float) -> Action:
    """The next thing to do. `now_unix`: for people to read."""
    if story.outcome is not None:
        return Wait("it has ended")
    if story.unknown:
        return _not_understood(story)
    match story.direction:
        case "back":
            return back(spec, story, sight, now_unix)
        case "held":
            how = f"outrider migrate resolve {spec.id}"
            gone = spec.strategy == "state" and spec.target.host in sight.lost
            more = f"; if {spec.target.host} never comes back: `{how} --back --accept-loss`" if gone else ""
            return Wait(f"a person decides (`{how}`): {story.reason}{more}", person=True)
        case _:
            return _forward(spec, story, sight, now_unix)


def _not_understood(story: Story) -> Action:
    """A later version was asked for something: to do the rest of it could do what nobody wants."""
    words = ", ".join(story.unknown)
    why = f"the version of Outrider that carries migrations out does not know {words}: upgrade its shim"
    return _cancel(why) if story.began is None else Wait(why, person=True)


def published_over(spec: Spec, agent: AgentDoc) -> str:
    """That its version is gone: a shim that did not keep it would run what is published. Empty if it is not."""
    if agent.at(spec.target.version) is not None:
        return ""
    return f"{spec.agent} is published at version {agent.version}, not at {spec.target.version} any more"


def _forward(spec: Spec, story: Story, sight: Sight, now_unix: float) -> Action:
    if story.asked_back:
        return GoBack(story.asked_back) if story.step else _cancel(story.asked_back)
    if not story.step:
        return _first(spec, story, sight)
    if over := published_over(spec, sight.agent):
        return GoBack(over)
    if story.resolution == "keep" and spec.strategy == "cold":
        # The old one may have been started again: the cutover is done anew.
        return Begin("close", edits.held(edits.stopped(sight.placement, spec.source.instance), ""))
    if story.resolution == "keep":
        return _finalised(spec, sight, now_unix, "kept, as a person decided", {}, run=True)
    if story.step == APPROVAL:
        return _approved(spec, story, sight)
    step = next(step for step in FORWARD[spec.strategy] if step.name == story.step)
    if step.phase in ("prepare", "canary") and (lost := _lost(spec, sight)):
        return GoBack(f"{step.name}: {lost}")
    found = step.probe(spec, story, sight)
    if isinstance(found, Failed):
        return GoBack(f"{step.name}: {found.why}", found.evidence)
    if isinstance(found, Done):
        if following := following_steps(step, spec, sight):
            return _begin(following[0], spec, story, sight, found)
        if story.paused:
            return Wait(f"paused by {story.paused}", person=True)
        if spec.rehearse:
            return _rehearsed(spec, sight, now_unix, found)
        return _finalised(spec, sight, now_unix, found.said, found.evidence)
    if sight.waited_s >= step.limit_s(spec, sight):
        what = found.why if isinstance(found, Wait) else "its state"
        return GoBack(f"{step.name}: not done within {step.limit_s(spec, sight):g} s: {what}")
    return found


def _first(spec: Spec, story: Story, sight: Sight) -> Action:
    well = (None, "finalised", "rehearsed")
    failed = sorted(name for name, outcome in sight.others.items() if outcome not in well)
    if failed:
        return _cancel(f"{failed[0]}, which it was to follow, was not finalised")
    waiting = sorted(name for name, outcome in sight.others.items() if outcome is None)
    if waiting:
        return Wait(f"follows {', '.join(waiting)}")
    if story.paused:
        return Wait(f"paused by {story.paused}", person=True)
    if sight.refused and sight.waited_s < REFUSED_S:
        return Wait("; ".join(sight.refused))
    if sight.refused:
        return _cancel("; ".join(sight.refused))
    step = FORWARD[spec.strategy][0]
    return Begin(step.name, step.do(spec, sight), evidence=begun_with(step, spec, sight))


def _begin(step: Step, spec: Spec, story: Story, sight: Sight, done: Done) -> Action:
    if story.paused:
        return Wait(f"paused by {story.paused}", person=True)
    if step.gate and _lacking(spec, story) > 0:
        return Begin(APPROVAL, None, done.said, done.evidence)
    return Begin(step.name, step.do(spec, sight), done.said, done.evidence)


def _approved(spec: Spec, story: Story, sight: Sight) -> Action:
    """All is ready, and people are waited for; state that was copied ahead is copied again when they have agreed."""
    if lost := _lost(spec, sight):
        return GoBack(f"{APPROVAL}: {lost}")
    if (lacking := _lacking(spec, story)) > 0:
        return Wait(f"{lacking} more must approve it (`outrider migrate approve {spec.id}`)", person=True)
    if story.paused:
        return Wait(f"paused by {story.paused}", person=True)
    step = next(step for step in FORWARD[spec.strategy] if step.gate or step.name == "copy")
    return Begin(step.name, step.do(spec, sight), f"approved by {', '.join(story.approved_by)}")


def _lacking(spec: Spec, story: Story) -> int:
    return spec.policy.approvals - len(story.approved_by)


def _lost(spec: Spec, sight: Sight) -> str:
    """Before the cutover nothing goes on without either host."""
    lost = [host for host in (spec.source.host, spec.target.host) if host in sight.lost]
    return f"{lost[0]} is lost" if lost else ""


def _rehearsed(spec: Spec, sight: Sight, now_unix: float, found: Done) -> Action:
    """All that comes before the cutover has worked, and the new one goes: the old one was not touched."""
    source, target = spec.source.instance, spec.target.instance
    if sight.holds(target):  # it stood by, and the old one was lost meanwhile
        return GoBack(f"{target} had to take the lease of {source} while it was rehearsed")
    why = f"migration {spec.id} was rehearsed: {target} on {spec.target.host} was ready, and is gone"
    doc = edits.left(sight.placement, spec, source, why, now_unix)
    return End("rehearsed", f"{target} was ready to take over{f': {found.said}' if found.said else ''}", doc)


def _finalised(
    spec: Spec, sight: Sight, now_unix: float, said: str, evidence: dict[str, Any], *, run: bool = False
) -> Action:
    """The point of no return: the old one goes with the same write that ends it."""
    why = f"migration {spec.id}: {spec.source.instance} on {spec.source.host} became {spec.target.instance}"
    why = f"{why} on {spec.target.host}"
    doc = edits.left(sight.placement, spec, spec.target.instance, why, now_unix, run=run)
    return End("finalised", said, doc, evidence)


def _cancel(why: str) -> End:
    return End("cancelled", why)
