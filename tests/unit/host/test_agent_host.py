"""What the documents want on one host."""

from __future__ import annotations

from outrider.fleet.spec import Agent
from outrider.host.agent_host import desired_on
from outrider.registry.layout import AgentDoc, Placed, PlacementDoc

ECHO = AgentDoc("Echo", "reference", Agent(), "v1")
HERE, THERE = Placed("Echo-1", "pc1", "v1"), Placed("Echo-2", "pc2", "v1")


def test_only_what_is_placed_here_is_wanted_here() -> None:
    placements = {"Echo": PlacementDoc("Echo", (HERE, THERE))}
    assert desired_on("pc1", {"Echo": ECHO}, placements) == {"Echo-1": (ECHO, HERE)}
    assert desired_on("witness", {"Echo": ECHO}, placements) == {}


def test_a_placement_without_its_agent_wants_nothing() -> None:
    assert desired_on("pc1", {}, {"Echo": PlacementDoc("Echo", (HERE,))}) == {}
