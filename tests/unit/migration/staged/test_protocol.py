"""The protocol of a migration, tried in every order on a small scale; and each rule taken away once."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from outrider.migration.staged.records import Strategy
from unit.migration.staged.model import Model, Rules


@pytest.mark.parametrize(
    ("strategy", "troubles", "stale"), [("state", 1, 1), ("state", 2, 0), ("singleton", 1, 0), ("cold", 1, 0)]
)
def test_nothing_is_lost_and_all_ends_whatever_happens_when(strategy: Strategy, troubles: int, stale: int) -> None:
    model = Model(strategy, troubles=troubles, writes=1, stale=stale)
    model.explore()
    assert model.broken == {}
    assert model.outcomes >= {"finalised", "rolled_back", "cancelled"}
    given_up = [world for world in model.seen if world.given_up]
    assert bool(given_up) == (strategy == "state")  # and then only what was said to be


@pytest.mark.parametrize("strategy", ["state", "singleton"])
def test_a_rehearsal_touches_nothing_that_serves_whatever_happens_when(strategy: Strategy) -> None:
    model = Model(strategy, troubles=1, writes=1, stale=1, rehearse=True)
    model.explore()
    assert model.broken == {}
    assert model.outcomes >= {"rehearsed", "rolled_back", "cancelled"}
    assert "finalised" not in model.outcomes


@pytest.mark.parametrize("rule", Rules.__struct_fields__)
def test_without_any_one_rule_something_is_lost(rule: str) -> None:
    troubles = 2 if rule == "take_guard" else 1
    model = Model("state", replace(Rules(), **{rule: False}), troubles=troubles, writes=1, stale=0)
    model.explore(until_broken=True)
    assert model.broken
