"""What each step makes of a placement, and that the end leaves nothing of a migration in it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from outrider.migration.staged import edits
from outrider.migration.staged.records import End, Spec, Strategy
from outrider.registry.layout import Handover, MoveDoc, Placed, PlacementDoc

DOC = PlacementDoc("A", (Placed("A-1", "h1", "v1", "gpu"), Placed("A-2", "h2", "v1")))


def spec(strategy: Strategy = "replicated") -> Spec:
    return Spec("m", "A", strategy, End("A-1", "h1", "v1", "gpu"), End("A-3", "h3", "v2", "e"))


def weights(doc: PlacementDoc) -> dict[str, float]:
    return {placed.instance: placed.weight for placed in doc.instances}


def test_the_new_one_is_claimed_beside_the_old_ones() -> None:
    replica = edits.claimed(DOC, spec())
    assert replica.instances == (*DOC.instances, Placed("A-3", "h3", "v2", "e", weight=0.0))
    assert replica.migration == "m"
    state = edits.claimed(DOC, spec("state"), "key")
    assert (state.state_key_hash, state.instances[-1].reserve, state.instances[-1].weight) == (
        MoveDoc("key").hash,
        True,
        1.0,
    )
    assert edits.claimed(DOC, spec("cold")).instances[-1].state == "stopped"
    assert not edits.claimed(DOC, spec("singleton")).instances[-1].reserve


@pytest.mark.parametrize("strategy", ["replicated", "singleton", "state", "cold"])
@pytest.mark.parametrize(
    ("to", "home"),
    [("h1", "h9"), ("h3", ""), ("h9", "")],
    ids=["a new version where it is", "another host", "where it came from"],
)
def test_its_home_is_where_a_person_moved_it_and_else_stays(strategy: Strategy, to: str, home: str) -> None:
    """A host was lost, and it waits on another for that one to be well again."""
    away = replace(DOC, instances=(replace(DOC.instances[0], home="h9"), DOC.instances[1]))
    of = replace(spec(strategy), target=End("A-3", to, "v2", "e"))
    moving = edits.claimed(away, of, "key")
    kept = edits.left(moving, of, "A-3", "said", 5.0, run=True)
    assert {placed.instance: placed.home for placed in kept.instances} == {"A-2": "", "A-3": home}
    back = edits.left(moving, of, "A-1", "said", 5.0)
    assert back.instances == away.instances


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_a_canary_gets_its_share_of_all_calls(share: float) -> None:
    found = weights(edits.weighted(edits.claimed(DOC, spec()), spec(), share))
    assert found["A-3"] / sum(found.values()) == pytest.approx(share, abs=1e-5)
    assert found["A-1"] == found["A-2"] == 1.0


def test_after_the_shift_the_old_one_gets_none_and_others_as_before() -> None:
    shifted = edits.weighted(edits.claimed(DOC, spec()), spec(), 1.0)
    assert weights(shifted) == {"A-1": 0.0, "A-2": 1.0, "A-3": 1.0}
    assert weights(edits.weighted(shifted, spec(), 0.0)) == {"A-1": 1.0, "A-2": 1.0, "A-3": 0.0}


def test_with_state_neither_takes_the_lease_by_itself_while_it_passes() -> None:
    passing = edits.handing_over(edits.claimed(DOC, spec("state")), spec("state"), "A-3", 7)
    assert passing.handover == Handover("A-3", "h3", 7)
    assert {p.instance: p.reserve for p in passing.instances} == {"A-1": True, "A-2": False, "A-3": True}
    back = edits.handing_over(passing, spec("state"), "A-1", 8)
    assert back.handover == Handover("A-1", "h1", 8)
    taken = edits.taken_back(passing, spec("state"))
    assert taken.handover is None
    assert {p.instance: p.reserve for p in taken.instances} == {"A-1": False, "A-2": False, "A-3": True}


@pytest.mark.parametrize(("keep", "remain"), [("A-3", ["A-2", "A-3"]), ("A-1", ["A-1", "A-2"])])
def test_the_end_leaves_an_ordinary_placement(keep: str, remain: list[str]) -> None:
    doc = edits.held(edits.handing_over(edits.claimed(DOC, spec("state"), "key"), spec("state"), "A-3", 7), "why")
    left = edits.left(doc, spec("state"), keep, "said", 5.0)
    assert [placed.instance for placed in left.instances] == remain
    assert all((placed.weight, placed.reserve) == (1.0, False) for placed in left.instances)
    assert left == PlacementDoc("A", left.instances, "said", 5.0)


def test_the_lowest_free_number_is_the_new_name() -> None:
    assert edits.free_name(DOC) == "A-3"
    assert edits.free_name(PlacementDoc("A", DOC.instances[1:])) == "A-1"
