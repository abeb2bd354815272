"""The way back, from wherever a migration is: what to do follows from who holds what now, not from what was done.

A holder that is no longer wanted hands its lease back, with its state; a replica gets no more calls. Whatever fails is
not tried again blindly.
"""

from __future__ import annotations

from collections.abc import Callable

from outrider.migration.staged import edits
from outrider.migration.staged.records import Spec, Strategy
from outrider.migration.staged.sight import Action, Begin, End, Hold, Sight, Wait
from outrider.migration.staged.steps import has_ended
from outrider.migration.staged.story import ACCEPT_LOSS, Story

HAND_BACK_S = 5.0
TAKEN_S = 15.0
TAKES_S = 1.0  # it takes milliseconds, and is refused by a write of the placement meanwhile
REOPEN_S = 60.0
LOOK_S = 15.0  # a driver that was elected just now may not have seen yet that a host is lost


def back(spec: Spec, story: Story, sight: Sight, now_unix: float) -> Action:
    """The next thing to do on the way back."""
    if edits.placed_of(sight.placement, spec.target.instance) is None:
        return _over(spec, story, sight, now_unix)  # it was never begun
    if not story.cut_over and not sight.holds(spec.target.instance):
        return _over(spec, story, sight, now_unix)  # nothing has passed to it
    return _WAYS[spec.strategy](spec, story, sight, now_unix)


def _replicated(spec: Spec, story: Story, sight: Sight, now_unix: float) -> Action:
    """No call goes to the new one from here on, unless the old one is not well: then it goes on serving."""
    source = edits.placed_of(sight.placement, spec.source.instance)
    target = edits.placed_of(sight.placement, spec.target.instance)
    if source and target and (source.weight, target.weight) != (1.0, 0.0):
        return Begin("restore", edits.weighted(sight.placement, spec, 0.0))
    if spec.source.instance in sight.passing:
        return _over(spec, story, sight, now_unix)
    return _unwell(spec, story, sight)


def _singleton(spec: Spec, story: Story, sight: Sight, now_unix: float) -> Action:
    source, target = spec.source.instance, spec.target.instance
    if sight.lease and sight.locked and sight.lease.holder != target:
        return _over(spec, story, sight, now_unix)  # the old one has it, or one of its standbys
    if source not in sight.passing:
        return _unwell(spec, story, sight)
    if story.step == "" and sight.holds(target):
        epoch = sight.lease.epoch if sight.lease else 0
        return Begin("hand back", edits.handing_over(sight.placement, spec, source, epoch))
    if story.step == "hand back" and sight.waited_s < HAND_BACK_S and sight.holds(target):
        return Wait(f"{target} passes its lease back")
    if story.step in ("", "hand back"):
        # What does not finish its calls, or is gone, is ended: the lease is then given up.
        return Begin("stop", edits.stopped(sight.placement, target))
    if sight.waited_s < _taken_s(sight):
        return Wait(f"{source} takes the lease")
    return Hold(f"{source} on {spec.source.host} does not take the lease", sight.placement)


def _unwell(spec: Spec, story: Story, sight: Sight) -> Action:
    """To go back to what is not well would make an outage of a doubt: the new one goes on, and a person decides."""
    source, target = spec.source.instance, spec.target.instance
    if sight.waited_s < _taken_s(sight):
        return Wait(f"{source} is to be well before anything goes back to it")
    return Hold(f"{source} is not well, and {target} goes on: {story.reason}", sight.placement)


def _state(spec: Spec, story: Story, sight: Sight, now_unix: float) -> Action:
    """Who held the lease last has the state. If that is the new one, nothing but it can give the state back."""
    source, target = spec.source.instance, spec.target.instance
    if sight.lease is None or sight.lease.holder != target or _gave_back(sight, source):
        if story.step == "hand back" and _gave_back(sight, source) and sight.waited_s < TAKES_S:
            return Wait(f"{source} takes the lease that was passed back")
        if story.step != "take back":
            return Begin("take back", edits.taken_back(sight.placement, spec))
        return _over(spec, story, sight, now_unix)  # the new one takes nothing any more
    if story.resolution == "accept_loss" and (given_up := _given_up(spec, story, sight)):
        return given_up
    if story.step in ("", ACCEPT_LOSS) and sight.holds(target):
        return Begin("hand back", edits.handing_over(sight.placement, spec, source, sight.lease.epoch))
    if story.step == "":
        # It may only have been restarted: it takes the lease again, and can then pass it on.
        return Begin("revive", edits.reserved(sight.placement, spec, source=True, target=False))
    if story.step == "revive" and sight.holds(target):
        return Begin("hand back", edits.handing_over(sight.placement, spec, source, sight.lease.epoch))
    if story.step == ACCEPT_LOSS and sight.waited_s < _taken_s(sight):
        return Wait(f"{source} takes the lease, without what {target} has accepted")
    if sight.waited_s < (_taken_s(sight) if story.step == "revive" else HAND_BACK_S):
        return Wait(f"{target}, which has the state, passes it back")
    why = f"{target} on {spec.target.host} has accepted work that {source} lacks, and does not give it back"
    return Hold(why, edits.held(edits.reserved(sight.placement, spec, source=True, target=True), why))


def _given_up(spec: Spec, story: Story, sight: Sight) -> Action | None:
    """What the new one accepted is lost from when the old one takes the lease; if the new one is there again, nothing.

    None: what was given up is not lost, and it goes back as always.
    """
    source, target = spec.source, spec.target
    if source.host not in sight.lost and target.host in sight.lost and not sight.locked:
        return Begin(ACCEPT_LOSS, edits.reserved(sight.placement, spec, source=False, target=True), story.loss)
    if sight.waited_s < LOOK_S and not sight.holds(target.instance):
        return Wait(f"whether {target.host} is lost, and {source.host} is not, is looked at")
    return None


def _gave_back(sight: Sight, source: str) -> bool:
    heir = sight.lease.heir if sight.lease and sight.lease.state == "released" else None
    return heir is not None and heir.instance == source


def _cold(spec: Spec, story: Story, sight: Sight, now_unix: float) -> Action:
    """The old one is started again, once the new one has no process any more."""
    source, target = spec.source.instance, spec.target.instance
    if story.step == "":
        return Begin("close again", edits.stopped(sight.placement, target))
    if story.step == "close again":
        if has_ended(sight, target) and not sight.holds(target):
            return Begin("open again", edits.running(sight.placement, source))
        return Wait(f"{target} is stopping") if sight.waited_s < REOPEN_S else _hold(sight, f"{target} does not end")
    if sight.holds(source) and source in sight.passing:
        return _over(spec, story, sight, now_unix)
    if sight.waited_s < REOPEN_S + sight.agent.agent.start_timeout_s:
        return Wait(f"{source} starts, and takes the lease")
    return _hold(sight, f"{source} on {spec.source.host} does not come up again")


def _taken_s(sight: Sight) -> float:
    """It may be starting, and gossip and lock delay may have to pass."""
    return TAKEN_S + sight.agent.agent.start_timeout_s


def _hold(sight: Sight, why: str) -> Hold:
    return Hold(why, edits.held(sight.placement, why))


def _over(spec: Spec, story: Story, sight: Sight, now_unix: float) -> Action:
    why = f"migration {spec.id} went back: {story.reason}"
    doc = edits.left(sight.placement, spec, spec.source.instance, why, now_unix)
    return End("rolled_back", f"{story.reason}; {story.loss}" if story.loss else story.reason, doc)


_WAYS: dict[Strategy, Callable[[Spec, Story, Sight, float], Action]] = {
    "replicated": _replicated,
    "singleton": _singleton,
    "state": _state,
    "cold": _cold,
}
