"""New agents come first, needs before what needs them, what goes comes last unless it sits on a wanted port."""

from __future__ import annotations

from outrider.fleet.spec import Agent
from outrider.migration.changes import AgentChange, Documents, Kind
from outrider.migration.stages import Stage, stages
from outrider.registry.layout import AgentDoc, Placed, PlacementDoc


def change(name: str, kind: Kind, *, needs: tuple[str, ...] = (), port: int | None = None) -> AgentChange:
    agent = Agent(command=("run",), needs=needs, ports={"main": port} if port else {})
    placement = PlacementDoc(name, (Placed(f"{name}-1", "one", "v"),))
    docs = Documents(AgentDoc(name, "test", agent, "v"), placement)
    return AgentChange(
        name, kind, (), Documents() if kind == "added" else docs, Documents() if kind == "removed" else docs
    )


def test_nothing_to_do_has_no_stage() -> None:
    assert stages([change("a", "unchanged")], 8) == []


def test_all_new_agents_are_one_stage() -> None:
    found = [change("a", "added", needs=("b",)), change("b", "added")]
    assert stages(found, 1) == [Stage(("a", "b"), 2, together=True)]


def test_changed_agents_follow_their_needs_also_through_unchanged_ones() -> None:
    found = [change("a", "changed", needs=("b",)), change("b", "unchanged", needs=("c",)), change("c", "changed")]
    assert stages(found, 4) == [Stage(("c",), 4), Stage(("a",), 4)]


def test_a_cycle_is_one_stage() -> None:
    found = [change("a", "changed", needs=("b",)), change("b", "changed", needs=("a",))]
    assert stages(found, 8) == [Stage(("a", "b"), 8)]


def test_what_goes_comes_last_callers_first() -> None:
    found = [change("a", "removed"), change("b", "removed", needs=("a",)), change("c", "added"), change("d", "changed")]
    assert [stage.agents for stage in stages(found, 8)] == [("c",), ("d",), ("b",), ("a",)]


def test_a_port_that_is_wanted_is_freed_first() -> None:
    found = [
        change("old", "removed", port=7000),
        change("new", "added", port=7000),
        change("other", "removed", port=7001),
    ]
    assert [stage.agents for stage in stages(found, 8)] == [("old",), ("new",), ("other",)]
