"""What instances say while a need of theirs is not served, and when."""

from __future__ import annotations

import asyncio

from outrider.fleet.spec import Agent, Need, OnHost
from outrider.host.degradation import Degradation, Settled, places, reasons, required_needs
from outrider.registry.layout import AgentDoc, Placed, PlacementDoc


def fleet(**agents: Agent) -> tuple[dict[str, AgentDoc], dict[str, PlacementDoc]]:
    docs = {name: AgentDoc(name, "test", agent, "v1") for name, agent in agents.items()}
    placed = {name: PlacementDoc(name, (Placed(f"{name}-1", "pc1", "v1", entry="pc1"),)) for name in agents}
    return docs, placed


def needs(**agents: Agent) -> dict[str, tuple[Need, ...]]:
    return required_needs(places(*fleet(**agents)))


def lacking(down: set[str], **agents: Agent) -> dict[str, str]:
    return reasons(needs(**agents), frozenset(down))


def test_who_requires_what_nobody_serves_says_so_with_its_fallback() -> None:
    agents = {
        "Chat": Agent(needs=(Need("Memory", fallback="answers without history"), "Clock")),
        "Memory": Agent(),
        "Clock": Agent(needs=("Memory",)),
    }
    assert lacking({"Memory"}, **agents) == {
        "Chat-1": "needs Memory: nobody serves it (fallback: answers without history)",
        "Clock-1": "needs Memory: nobody serves it",
    }
    both = "needs Clock: nobody serves it; needs Memory: nobody serves it (fallback: answers without history)"
    assert lacking({"Clock", "Memory"}, **agents)["Chat-1"] == both
    assert lacking(set(), **agents) == {}


def test_a_need_that_is_not_required_changes_nothing() -> None:
    assert lacking({"Memory"}, Chat=Agent(needs=(Need("Memory", required=False),))) == {}


def test_needs_may_differ_from_host_to_host() -> None:
    there = Agent(needs=("Memory",), hosts={"pc1": OnHost(needs=("Clock",))})
    assert lacking({"Memory"}, Chat=there) == {}
    assert lacking({"Clock"}, Chat=there) == {"Chat-1": "needs Clock: nobody serves it"}


def test_a_change_counts_once_it_has_lasted() -> None:
    settled = Settled(1.0)
    assert settled.update({"A"}, 10.0) == 11.0
    assert settled.update({"A", "B"}, 10.5) == 11.0
    assert settled.members == frozenset()
    assert settled.update({"A", "B"}, 11.0) == 11.5
    assert settled.members == {"A"}
    assert settled.update({"A"}, 11.2) is None  # B came back in time
    assert settled.update(set(), 20.0) == 21.0  # and A must stay back for as long
    assert settled.members == {"A"}
    assert settled.update({"A"}, 20.9) is None
    assert settled.update(set(), 21.5) == 22.5
    assert settled.update(set(), 22.5) is None
    assert settled.members == frozenset()


async def test_each_change_is_told_once_and_by_itself() -> None:
    """Nobody publishes anything between the failure and the end of the second: its own timer looks again."""
    served, told = {"Memory"}, asyncio.Queue[dict[str, str]]()
    docs, placed = fleet(Chat=Agent(needs=("Memory",)), Memory=Agent())
    watch = Degradation(lambda: places(docs, placed), served.__contains__, lambda: told.put_nowait(watch.reasons))
    watch.look()
    served.clear()
    began = asyncio.get_running_loop().time()
    watch.look()
    async with asyncio.timeout(5):
        assert await told.get() == {"Chat-1": "needs Memory: nobody serves it"}
    assert asyncio.get_running_loop().time() - began >= 0.99
    for _ in range(3):
        watch.look()
    assert told.empty()
    served.add("Memory")
    watch.look()
    async with asyncio.timeout(5):
        assert await told.get() == {}
    docs["Chat"] = AgentDoc("Chat", "test", Agent(needs=("Nobody",)), "v2")
    watch.documents_changed()
    watch.look()
    async with asyncio.timeout(5):
        assert await told.get() == {"Chat-1": "needs Nobody: nobody serves it"}
    watch.stop()
