"""What each step makes of a placement. Pure: a placement goes in, the next one comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from outrider.migration.staged.records import Spec
from outrider.registry.layout import Handover, MoveDoc, Placed, PlacementDoc

Edit = Callable[[Placed], Placed | None]


def claimed(doc: PlacementDoc, spec: Spec, state_key: str = "") -> PlacementDoc:
    """With the target beside the source, and nobody else placing this agent until the end.

    state_key: of which the placement, which every host may read, says the hash alone
    """
    target = spec.target
    place = (target.instance, target.host, target.version, target.entry)
    home = _home(doc, spec)
    if spec.strategy == "cold":  # it must not work before the old one has ended
        new = Placed(*place, state="stopped", home=home)
    else:
        weight = 0.0 if spec.strategy == "replicated" else 1.0
        new = Placed(*place, home=home, weight=weight, reserve=spec.strategy == "state")
    kept = tuple(placed for placed in doc.instances if placed.instance != target.instance)
    hashed = MoveDoc(state_key).hash if state_key else ""
    return replace(doc, instances=(*kept, new), migration=spec.id, state_key_hash=hashed)


def _home(doc: PlacementDoc, spec: Spec) -> str:
    """Where it goes back to when that host is well again: only what a person moves to another host is at home there."""
    source = placed_of(doc, spec.source.instance)
    return source.home if source and source.host == spec.target.host else ""


def weighted(doc: PlacementDoc, spec: Spec, share: float) -> PlacementDoc:
    """With `share` of all calls to the target; at 1 none go to the source any more."""
    others = [p for p in doc.instances if p.instance != spec.target.instance and p.state == "run"]
    if share >= 1.0:
        return _each(doc, target=(spec, {"weight": 1.0}), source=(spec, {"weight": 0.0}))
    weight = share * max(1, len(others)) / (1.0 - share)
    return _each(doc, target=(spec, {"weight": round(weight, 6)}), source=(spec, {"weight": 1.0}))


def handing_over(doc: PlacementDoc, spec: Spec, to: str, epoch: int) -> PlacementDoc:
    """With the wish that the lease of that epoch passes to the instance `to`.

    With state neither takes the lease by itself from here on: what the one has accepted, the other may lack.
    """
    end = spec.target if to == spec.target.instance else spec.source
    if spec.strategy == "state":
        doc = reserved(doc, spec, source=True, target=True)
    return replace(doc, handover=Handover(end.instance, end.host, epoch))


def reserved(doc: PlacementDoc, spec: Spec, *, source: bool, target: bool) -> PlacementDoc:
    """Who may not take the lease by itself."""
    return _each(doc, source=(spec, {"reserve": source}), target=(spec, {"reserve": target}))


def taken_back(doc: PlacementDoc, spec: Spec) -> PlacementDoc:
    """With the source as who may take the lease, and no wish that it passes: what was wished for fails from here on."""
    return replace(reserved(doc, spec, source=False, target=True), handover=None)


def stopped(doc: PlacementDoc, instance: str) -> PlacementDoc:
    """With that instance stopped: it leaves routing, finishes its calls, and ends."""
    return _edited(doc, lambda p: replace(p, state="stopped") if p.instance == instance else p)


def running(doc: PlacementDoc, instance: str) -> PlacementDoc:
    """With that instance wanted."""
    return _edited(doc, lambda p: replace(p, state="run") if p.instance == instance else p)


def held(doc: PlacementDoc, why: str) -> PlacementDoc:
    """With its callers waiting, and no wish that a lease passes: what is wished again later is a wish anew."""
    return replace(doc, held=why, handover=None)


def left(doc: PlacementDoc, spec: Spec, keep: str, reason: str, since: float, *, run: bool = False) -> PlacementDoc:
    """The end: one of the two remains, as an ordinary instance, and the agent is everybody's again.

    run: it was stopped on a way back that is not gone to its end
    """
    gone = spec.source.instance if keep == spec.target.instance else spec.target.instance
    doc = _edited(doc, lambda p: None if p.instance == gone else replace(p, weight=1.0, reserve=False))
    if run:
        doc = running(doc, keep)
    return PlacementDoc(doc.agent, doc.instances, reason, since)


def placed_of(doc: PlacementDoc | None, instance: str) -> Placed | None:
    """An instance's place."""
    return next((p for p in doc.instances if p.instance == instance), None) if doc else None


def free_name(doc: PlacementDoc) -> str:
    """A name for one more instance: the lowest number that is free."""
    taken = {placed.instance for placed in doc.instances}
    number = 1
    while f"{doc.agent}-{number}" in taken:
        number += 1
    return f"{doc.agent}-{number}"


def _each(
    doc: PlacementDoc, *, source: tuple[Spec, dict[str, Any]], target: tuple[Spec, dict[str, Any]]
) -> PlacementDoc:
    changes = {source[0].source.instance: source[1], target[0].target.instance: target[1]}
    return _edited(doc, lambda p: replace(p, **changes.get(p.instance, {})))


def _edited(doc: PlacementDoc, edit: Edit) -> PlacementDoc:
    return replace(doc, instances=tuple(found for placed in doc.instances if (found := edit(placed)) is not None))
