"""A migration before it is begun: its steps with their limits, who must agree, and what its judge could see. Pure."""

from __future__ import annotations

import math

from msgspec import Struct, field

from outrider.failover.floor import Floor
from outrider.fleet.rooms import Room
from outrider.migration.judge import ALPHA, detectable
from outrider.migration.staged.ask import Plan
from outrider.migration.staged.evidence import FEW, OVER, P0_PROBES, signals
from outrider.migration.staged.records import End, Policy, RiskNote, Spec, Strategy
from outrider.migration.staged.sight import Counts, Sight
from outrider.migration.staged.steps import Step, steps_of
from outrider.registry.layout import PlacementDoc

DOES = {
    "start": "{target} starts on {host} beside {source}, and is well",
    "copy": "the state is copied to {target} while {source} works on",
    "canary": "{target} gets {share} of the calls, and is judged beside the others",
    "shift": "all calls of {source} go to {target}",
    "hand over": "callers wait while {source} finishes its calls and passes its lease on to {target}",
    "close": "{source} is stopped, and gives its lease up",
    "open": "{target} starts on {host}, and is well",
    "verify": "{target} is judged by how {source} did; if worse, all goes back",
}
PLACES = {"cold": "{target} gets its place on {host}, and is not started yet"}


class StepPlan(Struct, frozen=True):
    """One step. `limit_s`: it has failed if it is not done by then; of a judged one the longest time that it takes."""

    name: str
    phase: str
    limit_s: float
    does: str
    approvals: int = 0


class Sensed(Struct, frozen=True):
    """What a judged step could see. `detectable`: the smallest share of bad samples; 1 if `samples` show nothing."""

    step: str
    signal: str
    samples: int
    tolerated: float
    detectable: float


class PlanReport(Struct, frozen=True):
    """One migration that can be done.

    calls_s: calls a second that the old instance answers now; None if that was not measured
    room: what the target's host has left without it
    rehearse: it ends after these steps, and the new instance goes again
    vram: whether its GPU memory is judged, in words; empty if neither it nor the target's host has to do with any
    """

    id: str
    agent: str
    strategy: Strategy
    source: End
    target: End
    wave: int
    policy: Policy
    steps: tuple[StepPlan, ...]
    after: tuple[str, ...] = ()
    judge: tuple[Sensed, ...] = ()
    calls_s: float | None = None
    room: str = ""
    risk: RiskNote | None = None
    rehearse: bool = False
    vram: str = ""


class PlansReport(Struct, frozen=True):
    """All of them, in waves: each wave begins when the one before is finalised. `created`: they are asked for."""

    plans: tuple[PlanReport, ...]
    waves: tuple[tuple[str, ...], ...]
    created: bool = False


class Traffic(Struct, frozen=True):
    """How an instance does: its counts, and the calls a second of the last moments."""

    counts: Counts = field(default_factory=Counts)
    calls_s: float = 0.0


def preview(plan: Plan, traffic: Traffic | None = None, *, measured: bool = False) -> PlanReport:
    """`traffic`: of the source; None if it does not count its calls, or with `measured` false if nobody looked."""
    spec = plan.spec
    sight = Sight(plan.fleet.placements.get(spec.agent, PlacementDoc(spec.agent)), plan.agent)
    steps = tuple(_step(step, spec, sight) for step in steps_of(spec, sight))
    return PlanReport(
        id=spec.id,
        agent=spec.agent,
        strategy=spec.strategy,
        source=spec.source,
        target=spec.target,
        wave=plan.wave,
        policy=spec.policy,
        steps=steps,
        after=spec.after,
        judge=tuple(sensed for step in steps for sensed in _sensed(step.name, spec, traffic)) if measured else (),
        calls_s=traffic.calls_s if traffic else None,
        room=_room(plan),
        risk=spec.risk,
        rehearse=spec.rehearse,
        vram=_vram(plan),
    )


def report(plans: list[Plan], traffic: dict[str, Traffic] | None = None, *, created: bool = False) -> PlansReport:
    """`traffic`: by instance; None if nobody looked."""
    found = tuple(
        preview(plan, (traffic or {}).get(plan.spec.source.instance), measured=traffic is not None) for plan in plans
    )
    waves: dict[int, dict[str, None]] = {}
    for plan in found:
        waves.setdefault(plan.wave, {})[plan.agent] = None
    return PlansReport(found, tuple(tuple(wave) for wave in waves.values()), created)


def _step(step: Step, spec: Spec, sight: Sight) -> StepPlan:
    limit_s = step.limit_s(spec, sight)
    if math.isinf(limit_s):
        limit_s = spec.policy.canary_s if step.name == "canary" else spec.policy.verify_s
    said = PLACES.get(spec.strategy, DOES["start"]) if step.name == "start" else DOES[step.name]
    does = said.format(
        source=spec.source.instance,
        target=spec.target.instance,
        host=spec.target.host,
        share=f"{spec.policy.canary:.0%}",
    )
    return StepPlan(step.name, step.phase, limit_s, does, spec.policy.approvals if step.gate else 0)


def _sensed(step: str, spec: Spec, traffic: Traffic | None) -> tuple[Sensed, ...]:
    if step not in ("canary", "verify"):
        return ()
    if traffic is None:
        return (Sensed(step, "probes", 0, P0_PROBES, 1.0),)
    share, seconds = (spec.policy.canary, spec.policy.canary_s) if step == "canary" else (1.0, spec.policy.verify_s)
    samples = int(traffic.calls_s * share * seconds)
    found = signals(traffic.counts, Counts(FEW, 0, tuple(0 for _ in traffic.counts.buckets)), (0, 0))
    return tuple(
        Sensed(step, signal.name, samples, signal.p0, detectable(samples, signal.p0, ALPHA / len(found)))
        for signal in found
    )


def _vram(plan: Plan) -> str:
    declared, host = plan.agent.agent.resources.vram_mib, plan.spec.target.host
    there = plan.fleet.hosts[host].host.gpus_mib if host in plan.fleet.hosts else ()
    if declared:
        return f"more than {OVER * declared:.0f} MiB of GPU memory is bad, where the driver on {host} tells it"
    return "GPU memory is not judged: `resources.vram_mib` is not declared" if there else ""


def _room(plan: Plan) -> str:
    floor = Floor(plan.fleet.agents, plan.fleet.placements, plan.fleet.hosts, plan.fleet.closed())
    room = floor.rooms.get(plan.spec.target.host)
    return said_of(room) if room else ""


def said_of(room: Room) -> str:
    """What a host has left, in words."""
    left = [] if room.cpu is None else [f"{room.cpu:.4g} cores"]
    left += [] if room.memory_mib is None else [f"{room.memory_mib} MiB of memory"]
    left += [f"{mib} MiB on a GPU" for mib in room.gpus_mib]
    return f"{room.host.name} has {', '.join(left)} left without it" if left else f"{room.host.name} counts nothing"
