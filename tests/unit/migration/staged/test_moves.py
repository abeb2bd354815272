"""The key to the state: for the hosts of the migration, from its first step to its end."""

from __future__ import annotations

import pytest

from outrider.migration.staged import edits
from outrider.migration.staged.moves import key_changes
from outrider.migration.staged.records import End as Place
from outrider.migration.staged.records import Spec, Strategy
from outrider.migration.staged.sight import Begin, End, GoBack
from outrider.registry.kv import Change
from outrider.registry.layout import MoveDoc, Placed, PlacementDoc

DOC = PlacementDoc("A", (Placed("A-1", "h1", "v1"),))


def spec(strategy: Strategy = "state", to: str = "h2") -> Spec:
    return Spec("m", "A", strategy, Place("A-1", "h1", "v1"), Place("A-2", to, "v2"))


def test_both_hosts_get_it_with_the_placement_that_asks_for_it_and_lose_it_with_the_end() -> None:
    claimed = edits.claimed(DOC, spec(), "k")
    given = MoveDoc("k", ("h1", "h2"))
    made = key_changes(spec(), Begin("start", claimed), DOC, "k")
    assert made == [Change(f"outrider/moves/{host}/A", given, None) for host in ("h1", "h2")]
    assert claimed.state_key_hash == given.hash
    gone = [Change(f"outrider/moves/{host}/A", None, None) for host in ("h1", "h2")]
    assert key_changes(spec(), End("rolled_back", "why", DOC), claimed, "k") == gone
    assert key_changes(spec(), End("cancelled", "why"), DOC, "k") == gone


def test_no_other_step_changes_it_and_the_next_driver_s_key_is_not_taken() -> None:
    claimed = edits.claimed(DOC, spec(), "k")
    later = edits.handing_over(claimed, spec(), "A-2", 7)
    assert key_changes(spec(), Begin("hand over", later), claimed, "another") == []
    assert key_changes(spec(), Begin("copy"), claimed, "another") == []
    assert key_changes(spec(), GoBack("why"), claimed, "another") == []


def test_one_host_gets_it_once() -> None:
    made = key_changes(spec(to="h1"), Begin("start", edits.claimed(DOC, spec(to="h1"), "k")), DOC, "k")
    assert made == [Change("outrider/moves/h1/A", MoveDoc("k", ("h1",)), None)]


@pytest.mark.parametrize("strategy", ["replicated", "singleton", "cold"])
def test_without_state_there_is_none(strategy: Strategy) -> None:
    of = spec(strategy)
    assert key_changes(of, Begin("start", edits.claimed(DOC, of)), DOC, "k") == []
    assert key_changes(of, End("finalised", "why", DOC), DOC, "k") == []
