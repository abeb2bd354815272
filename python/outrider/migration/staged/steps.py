"""The steps of each strategy, in order, as tables: what a step writes as it begins, and when it has had its effect.

Whatever a step changes is one write of the placement, in one transaction with its entry in the journal; shims act on
it. So there is no moment at which one is done and the other is not, and no step is done twice: whoever goes on reads
where it is. A probe reads the truth, never what was meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Struct

from outrider.migration.judge import judge
from outrider.migration.staged import edits
from outrider.migration.staged.evidence import NOBODY, added, baseline_of, kept, signals
from outrider.migration.staged.records import Spec, Strategy
from outrider.migration.staged.sight import Copy, Counts, Done, Failed, Probe, Sight, Wait
from outrider.migration.staged.story import Story
from outrider.registry.layout import PlacementDoc

STEADY_S = 0.25  # passing for so long counts as warm
NEEDS_S = 30.0  # beyond an agent's own time to start: it may wait for its needs and for a slot of its host
COPY_S = 600.0
COPY_RETRY_S = 10.0  # what fails once may be a connection, or a key that is not there yet
DELTA_BYTES = 64 * 2**20  # what may be left to copy while callers wait
HAND_OVER_S = 5.0  # for its calls to be finished, its state to follow, and the lease to be taken
SHIFT_S = 2.0
CLOSE_S = 30.0
CRASH_LOOP_S = 10.0  # one that ends again and again is given up after it; five starts by then
GONE_S = 1.0  # the target may fail to pass for so long before that is a verdict

Phase = Literal["prepare", "canary", "cutover", "verify", "rollback", "held"]


class Step(Struct, frozen=True):
    """One step.

    do: the placement as it begins; None: nothing is written
    probe: whether it has had its effect
    limit_s: seconds after which it has failed
    gate: whether people must have agreed before
    """

    name: str
    phase: Phase
    do: Callable[[Spec, Sight], PlacementDoc | None]
    probe: Callable[[Spec, Story, Sight], Probe]
    limit_s: Callable[[Spec, Sight], float]
    gate: bool = False


def _start(spec: Spec, sight: Sight) -> PlacementDoc:
    return edits.claimed(sight.placement, spec, sight.new_key if spec.strategy == "state" else "")


def _warm(spec: Spec, story: Story, sight: Sight) -> Probe:
    del story
    name = spec.target.instance
    if spec.target.host in sight.lost:
        return Failed(f"{spec.target.host} is lost")
    if sight.passing.get(name, 0.0) >= STEADY_S:
        return Done()
    trouble = sight.trouble.get(name, "is not there yet")
    ends_again = trouble.startswith("exited:") and sight.waited_s >= CRASH_LOOP_S
    return Failed(f"{name} {trouble}") if trouble.startswith("parked") or ends_again else Wait(f"{name}: {trouble}")


def _start_limit(spec: Spec, sight: Sight) -> float:
    del spec
    return sight.agent.agent.start_timeout_s + NEEDS_S


def _copied(spec: Spec, story: Story, sight: Sight) -> Probe:
    if isinstance(unwell := _warm(spec, story, sight), Failed):
        return unwell
    if sight.copy_error and sight.waited_s >= COPY_RETRY_S:
        return Failed(f"its state cannot be copied: {sight.copy_error}")
    if sight.copied is None or sight.copied.moved_bytes > DELTA_BYTES:
        return Copy()
    copied = sight.copied
    return Done(f"{copied.total_bytes} bytes of state are there, {copied.moved_bytes} of them came last")


def _canary(spec: Spec, sight: Sight) -> PlacementDoc:
    return edits.weighted(sight.placement, spec, spec.policy.canary)


def _shift(spec: Spec, sight: Sight) -> PlacementDoc:
    return edits.weighted(sight.placement, spec, 1.0)


def _shifted(spec: Spec, story: Story, sight: Sight) -> Probe:
    """That each shim has read it is not waited for: until then its callers go to the old one, which serves on."""
    return _warm(spec, story, sight)


def _hand_over(spec: Spec, sight: Sight) -> PlacementDoc:
    epoch = sight.lease.epoch if sight.lease else 0
    return edits.handing_over(sight.placement, spec, spec.target.instance, epoch)


def _handed_over(spec: Spec, story: Story, sight: Sight) -> Probe:
    del story
    if sight.holds(spec.target.instance):
        return Done(f"{spec.target.instance} holds the lease, epoch {sight.lease.epoch if sight.lease else 0}")
    if spec.target.host in sight.lost:
        return Failed(f"{spec.target.host} is lost")
    return Wait(f"{spec.source.instance} passes its lease on")


def _close(spec: Spec, sight: Sight) -> PlacementDoc:
    return edits.stopped(sight.placement, spec.source.instance)


def _closed(spec: Spec, story: Story, sight: Sight) -> Probe:
    """Only its shim's word counts: a lease that is free may be that of one that works on, or is started again."""
    del story
    source = spec.source.instance
    return Done() if has_ended(sight, source) else Wait(f"{source} is stopping")


def has_ended(sight: Sight, instance: str) -> bool:
    """Whether its shim says that it is stopped and has no process."""
    return sight.trouble.get(instance, "").startswith(("stopped: by request", "parked"))


def _open(spec: Spec, sight: Sight) -> PlacementDoc:
    return edits.running(sight.placement, spec.target.instance)


def _opened(spec: Spec, story: Story, sight: Sight) -> Probe:
    found = _warm(spec, story, sight)
    name = spec.target.instance
    if isinstance(found, Done) and not (sight.holds(name) and name in sight.known_holder):
        return Wait(f"{name} takes the lease")
    return found


def _unreserve(spec: Spec, sight: Sight) -> PlacementDoc | None:
    """From here on the target is who may take the lease by itself: the source lacks what it accepts."""
    if spec.strategy != "state":
        return None
    return edits.reserved(sight.placement, spec, source=True, target=False)


def _judged(spec: Spec, story: Story, sight: Sight) -> Probe:
    """Whether the new one is there, and as good as the old one was."""
    return _gone(spec, sight) or _compared(spec, story, sight)


def _gone(spec: Spec, sight: Sight) -> Probe | None:
    name = spec.target.instance
    if spec.target.host in sight.lost:
        return Failed(f"{spec.target.host} is lost")
    if spec.strategy != "replicated" and sight.lease and not sight.holds(name):
        others = sight.locked and sight.lease.holder != name
        if others or sight.unheld_s >= GONE_S:
            return Failed(f"{name} lost the lease to {sight.lease.holder if others else 'nobody'}")
        return Wait(f"{name} is to take the lease again")
    if sight.died:
        return Failed(f"{name} {sight.died}")
    if sight.unwell.get(name, 0.0) >= GONE_S:
        return Failed(f"{name} does not pass: {sight.trouble.get(name, 'it is not there')}")
    return None


def _compared(spec: Spec, story: Story, sight: Sight) -> Probe:
    canary = story.step == "canary"
    over = sight.waited_s >= (spec.policy.canary_s if canary else spec.policy.verify_s)
    baseline = baseline_of(story.evidence.get("start", {}))
    since = _since_when(spec, sight, canary=canary)
    seen = (baseline, sight.counts.get(spec.target.instance), sight.probes, *since, sight.vram)
    verdict = judge(signals(*seen, sight.aside), over=over)
    if verdict.word == "rollback":
        # Calls that were slow together, once, may be so of one moment in which nothing ran.
        lasting = judge(signals(*seen, added(sight.aside, sight.worst)), over=over)
        if lasting.word != "rollback" and not over:
            return Wait(f"one moment alone is no verdict: {verdict.said}")
        verdict = lasting
    evidence = kept(verdict)
    if sight.agent.agent.resources.vram_mib and not sight.vram[1]:
        evidence["vram"] = "not measured: no GPU memory of it is told"
    if verdict.word == "rollback":
        return Failed(verdict.said, evidence)
    if verdict.word == "go":
        return Done(verdict.said, evidence)
    if verdict.word == "continue":
        return Wait(verdict.said)
    slow = judge(signals(*seen), over=over).word == "rollback"  # by what its machine does, or by what it does to that
    return _undecided(spec, story, verdict.said, evidence, canary=canary, slow=slow)


def _since_when(spec: Spec, sight: Sight, *, canary: bool) -> tuple[Counts | None, Counts | None]:
    """Which of the target's calls say nothing of errors, and which of slow calls."""
    if canary:
        return NOBODY, NOBODY
    if spec.strategy == "replicated":  # what was well with a few calls is to be so with all
        return sight.at_begin, sight.at_begin
    return NOBODY, sight.waited_for  # calls that waited for the cutover all come at once


def _undecided(spec: Spec, story: Story, said: str, evidence: dict[str, object], *, canary: bool, slow: bool) -> Probe:
    if canary or (spec.policy.undecided == "accept" and not slow) or story.verdict_approved:
        # What a few calls beside the old ones could not show is judged on all of them after the cutover.
        return Done(said, evidence)
    if spec.policy.undecided == "rollback":
        return Failed(said, evidence)
    return Wait(f"a person decides (`outrider migrate approve {spec.id} --verdict`): {said}", person=True)


def _no_limit(spec: Spec, sight: Sight) -> float:
    del spec, sight
    return float("inf")


def _within(seconds: float) -> Callable[[Spec, Sight], float]:
    return lambda spec, sight: seconds


def _nothing(spec: Spec, sight: Sight) -> None:
    del spec, sight


START = Step("start", "prepare", _start, _warm, _start_limit)
START_COLD = Step("start", "prepare", _start, lambda spec, story, sight: Done(), _start_limit)
COPY = Step("copy", "prepare", _nothing, _copied, _within(COPY_S))
CANARY = Step("canary", "canary", _canary, _judged, _no_limit)
SHIFT = Step("shift", "cutover", _shift, _shifted, _within(SHIFT_S), gate=True)
HAND_OVER = Step("hand over", "cutover", _hand_over, _handed_over, _within(HAND_OVER_S), gate=True)
CLOSE = Step("close", "cutover", _close, _closed, _within(CLOSE_S), gate=True)
OPEN = Step("open", "cutover", _open, _opened, _start_limit)
VERIFY = Step("verify", "verify", _unreserve, _judged, _no_limit)

APPROVAL = "approval"  # before the cutover, where the policy asks for it

FORWARD: dict[Strategy, tuple[Step, ...]] = {
    "replicated": (START, CANARY, SHIFT, VERIFY),
    "singleton": (START, HAND_OVER, VERIFY),
    "state": (START, COPY, HAND_OVER, VERIFY),
    "cold": (START_COLD, CLOSE, OPEN, VERIFY),
}


def steps_of(spec: Spec, sight: Sight) -> tuple[Step, ...]:
    """Forward."""
    return tuple(step for step in FORWARD[spec.strategy] if _is_done(step, spec, sight))


def following_steps(step: Step, spec: Spec, sight: Sight) -> tuple[Step, ...]:
    """What comes after a step."""
    steps = FORWARD[spec.strategy]
    following = steps[steps.index(step) + 1 :]
    return tuple(each for each in following if _is_done(each, spec, sight))


def _is_done(step: Step, spec: Spec, sight: Sight) -> bool:
    """A rehearsal has no step that callers could notice; a replica that is alone has nothing to be judged beside."""
    if spec.rehearse:
        return step.phase == "prepare"
    return step is not CANARY or _has_others(spec, sight)


def _has_others(spec: Spec, sight: Sight) -> bool:
    others = [p for p in sight.placement.instances if p.instance != spec.target.instance and p.state == "run"]
    return spec.policy.canary > 0.0 and bool(others)


def begun_with(step: Step, spec: Spec, sight: Sight) -> dict[str, object]:
    """What a step notes as it begins: the first, how the source did."""
    counts = sight.counts.get(spec.source.instance)
    return {"baseline": msgspec.to_builtins(counts)} if step.name == "start" and counts else {}
