"""What is to be migrated to reach a wanted state, and what is under way to it."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from outrider.errors import MigrationRefused, OutriderError, UnknownAgent
from outrider.fleet.spec import Agent, Host
from outrider.migration.compile import Definition
from outrider.migration.staged.plan import Fleet
from outrider.migration.staged.records import End, Given, Journal, Spec, next_entry
from outrider.migration.staged.wanted import Order, concerns, documents, lacking, selected, under_way, wish
from outrider.registry.layout import AgentDoc, HostDoc, Placed, PlacementDoc

HUB, TOOL = Agent(module="hub", tier="core"), Agent(module="tool")
FLEET = Fleet(
    {"Hub": AgentDoc("Hub", "lab", HUB, "v1"), "Tool": AgentDoc("Tool", "lab", TOOL, "v1")},
    {
        "Hub": PlacementDoc("Hub", (Placed("Hub-1", "old", "v1"), Placed("Hub-2", "new", "v1"))),
        "Tool": PlacementDoc("Tool", (Placed("Tool-1", "old", "v1"),)),
    },
    {name: HostDoc(Host(name)) for name in ("old", "new")},
)


def journal(agent: str = "Tool", host: str = "new", version: str = "v1", *, ended: bool = False) -> Journal:
    made = Journal(Spec("m1", agent, "replicated", End(f"{agent}-1", "old", "v1"), End(f"{agent}-9", host, version)))
    if ended:
        made = made.followed_by(next_entry(made, "ended", 1.0, "old", outcome="finalised"))
    return made


@pytest.mark.parametrize(
    ("order", "names"),
    [
        (Order(agents=("Tool",), to="new"), ["Tool"]),
        (Order(agents=("Tool",), to="old"), []),
        (Order(agents=("Hub",), to="new"), []),  # one of its instances is there
        (Order(agents=("Hub",), to="new", instance="Hub-1"), ["Hub"]),
        (Order(agents=("Tool",), to="old", instance="Tool-7"), []),  # it was moved, and has another name now
        (Order(tier="core", to="new"), []),
        (Order(host="old", to="new"), ["Hub", "Tool"]),
        (Order(host="old", to="new", tier="core"), ["Hub"]),
        (Order(agents=("Hub", "Tool")), []),
    ],
)
def test_only_what_is_not_there_yet_is_lacking(order: Order, names: list[str]) -> None:
    assert lacking(order, FLEET, {}) == names


def test_a_definition_selects_what_is_at_another_version() -> None:
    agents = {"Hub": HUB, "Tool": replace(TOOL, args=("x",)), "New": TOOL}
    order = Order(definition=msgspec.to_builtins(Definition("lab", agents, (Host("old"),))))
    docs = documents(order, FLEET)
    assert docs.keys() == {"Hub", "Tool"}  # what is not published yet is nothing to migrate
    there = replace(FLEET, agents={**FLEET.agents, "Hub": docs["Hub"]})
    instances = tuple(replace(p, version=docs["Hub"].version) for p in there.placements["Hub"].instances)
    there = replace(there, placements={**there.placements, "Hub": PlacementDoc("Hub", instances)})
    assert lacking(order, there, docs) == ["Tool"]
    assert wish(order, ["Tool"], docs).docs == {"Tool": docs["Tool"]}


def test_what_is_not_said_or_not_known_is_refused() -> None:
    with pytest.raises(MigrationRefused, match="neither agents"):
        selected(Order(to="new"), FLEET)
    with pytest.raises(UnknownAgent, match="no agent Nobody"):
        selected(Order(agents=("Nobody",)), FLEET)
    with pytest.raises(OutriderError, match="there is no host moon"):
        selected(Order(host="moon"), FLEET)


def test_a_rehearsal_is_no_migration_that_one_could_join_nor_the_other_way_round() -> None:
    real, rehearsal = Order(agents=("Tool",), to="new"), Order(agents=("Tool",), to="new", state="rehearsed")
    assert (wish(real, ["Tool"], {}).rehearse, wish(rehearsal, ["Tool"], {}).rehearse) == (False, True)
    rehearsed = replace(journal(), spec=replace(journal().spec, rehearse=True))
    assert under_way(rehearsal, [rehearsed], FLEET, {}, ["Tool"]) == [rehearsed]
    with pytest.raises(MigrationRefused, match="Tool is rehearsed just now, by migration m1"):
        under_way(real, [rehearsed], FLEET, {}, ["Tool"])
    with pytest.raises(MigrationRefused, match="Tool goes to new already"):
        under_way(rehearsal, [journal()], FLEET, {}, ["Tool"])


def test_what_is_under_way_to_the_same_place_is_joined() -> None:
    order = Order(agents=("Tool",), to="new")
    mine = journal()
    assert under_way(order, [mine, journal("Hub"), journal(ended=True)], FLEET, {}, ["Tool"]) == [mine]
    docs = {"Tool": replace(FLEET.agents["Tool"], version="v2")}
    assert under_way(Order(agents=("Tool",)), [journal(host="old", version="v2")], FLEET, docs, ["Tool"])


def test_what_is_under_way_to_another_place_is_in_the_way() -> None:
    with pytest.raises(MigrationRefused, match="Tool goes to new already, by migration m1"):
        under_way(Order(agents=("Tool",), to="old"), [journal()], FLEET, {}, ["Tool"])


def test_only_what_is_named_goes_back() -> None:
    assert concerns(Order(migration="m1"), journal(), ())
    assert not concerns(Order(migration="m2"), journal(), ("Tool",))
    assert concerns(Order(host="old"), journal(), ("Tool",))
    assert not concerns(Order(host="moon"), journal(), ("Tool",))
    assert not concerns(Order(agents=("Tool",), to="old"), journal(), ("Tool",))


def test_a_policy_is_only_said_if_somebody_said_it() -> None:
    assert wish(Order(), ["Tool"], {}).policy == Given()
    assert wish(Order(canary=0.0, approvals=2), ["Tool"], {}).policy == Given(canary=0.0, approvals=2)
    assert wish(Order(state="staged"), ["Tool"], {}).staged
