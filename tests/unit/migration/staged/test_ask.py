"""Several migrations at once: in waves of needs, each with room of its own, or none of them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from outrider.errors import MigrationRefused, OutriderError, UnknownAgent
from outrider.fleet.spec import Agent, Host, Resources
from outrider.migration.staged.ask import Plan, Wish, arranged
from outrider.migration.staged.plan import Ask, Fleet
from outrider.migration.staged.preview import Traffic, preview, report
from outrider.migration.staged.records import Given, Policy, RiskNote, Spec
from outrider.migration.staged.sight import Counts
from outrider.registry.layout import FLEET, PLACEMENT, AgentDoc, HostDoc, Placed, PlacementDoc

AGENTS = {
    "Hub": Agent(module="hub", resources=Resources(memory_mib=60)),
    "Between": Agent(module="between", needs=("Hub",), hosts=("old",)),
    "Planner": Agent(module="planner", needs=("Between",), resources=Resources(memory_mib=60)),
}


def policy(ask: Ask, made: Spec) -> tuple[Policy, RiskNote | None]:
    return Policy(verify_s=7.0), RiskNote(12, "medium")


def fleet(agents: dict[str, Agent] = AGENTS, memory_mib: int | None = None, count: int = 1) -> Fleet:
    docs = {name: AgentDoc(name, "lab", agent, "v1") for name, agent in agents.items()}
    placed = {
        name: PlacementDoc(name, tuple(Placed(f"{name}-{i}", "old", "v1") for i in range(1, count + 1)))
        for name in agents
    }
    hosts = {name: HostDoc(Host(name, memory_mib=memory_mib)) for name in ("old", "new")}
    return Fleet(docs, placed, hosts)


def plans(wish: Wish, there: Fleet) -> list[Plan]:
    indexes = {FLEET + name: 5 for name in there.agents} | {PLACEMENT + name: 6 for name in there.placements}
    return arranged(wish, there, indexes, 1000.0, policy)


def test_needs_go_first_also_over_an_agent_that_stays() -> None:
    first, second = plans(Wish("me", ("Planner", "Hub"), to="new"), fleet())
    assert [(plan.spec.agent, plan.wave) for plan in (first, second)] == [("Hub", 1), ("Planner", 2)]
    assert first.spec.after == ()
    assert second.spec.after == (first.spec.id,)
    assert first.spec.policy.verify_s == 7.0
    assert first.spec.risk == RiskNote(12, "medium")


def test_what_one_takes_of_a_host_the_next_lacks_and_then_nothing_is_done() -> None:
    with pytest.raises(MigrationRefused) as refused:
        plans(Wish("me", ("Planner", "Hub"), to="new"), fleet(memory_mib=110))
    assert refused.value.problems == ["Planner: Planner-2 has no place on new: 50 MiB of memory left, wanted 60"]
    assert len(plans(Wish("me", ("Planner", "Hub"), to="new"), fleet(memory_mib=120))) == 2


def test_all_on_a_host_names_what_may_not_leave_it_and_what_can() -> None:
    with pytest.raises(MigrationRefused) as refused:
        plans(Wish("me", leave="old", to="new"), fleet())
    assert len(refused.value.problems) == 1
    assert "the fleet file lets Between run on old only" in refused.value.problems[0]
    assert "`outrider migrate run Hub Planner --to new`" in refused.value.hint


def test_a_version_replaces_the_instances_one_by_one_and_is_published_once() -> None:
    there = fleet({"Hub": AGENTS["Hub"]}, count=2)
    doc = replace(there.agents["Hub"], version="v2", agent=replace(AGENTS["Hub"], args=("x",)))
    first, second = plans(Wish("me", ("Hub",), docs={"Hub": doc}), there)
    assert [plan.spec.source.instance for plan in (first, second)] == ["Hub-1", "Hub-2"]
    assert [plan.spec.target.instance for plan in (first, second)] == ["Hub-3", "Hub-1"]
    assert second.spec.after == (first.spec.id,)
    assert first.planned.doc == replace(doc, previous=there.agents["Hub"])
    assert (first.planned.index, first.planned.placed_index) == (5, 6)
    assert second.planned.doc is None


def test_a_version_is_judged_by_its_own_document() -> None:
    there = fleet({"Hub": AGENTS["Hub"]})
    doc = replace(there.agents["Hub"], version="v2", agent=replace(AGENTS["Hub"], args=("x",)))
    asked = []

    def seen(ask: Ask, made: Spec) -> tuple[Policy, RiskNote | None]:
        asked.append((ask.doc, ask.readable, made.source.instance, made.target.host))
        return policy(ask, made)

    arranged(Wish("me", ("Hub",), docs={"Hub": doc}, readable=True), there, {}, 1000.0, seen)
    assert asked == [(replace(doc, previous=there.agents["Hub"]), True, "Hub-1", "old")]


def test_what_is_at_the_version_already_is_left_alone() -> None:
    there = fleet({"Hub": AGENTS["Hub"]})
    with pytest.raises(MigrationRefused, match="at version v1 already"):
        plans(Wish("me", ("Hub",)), there)


def test_one_that_is_moved_already_is_refused() -> None:
    there = fleet()
    moving = replace(there.placements["Hub"], migration="other")
    there = replace(there, placements={**there.placements, "Hub": moving})
    with pytest.raises(MigrationRefused, match="by migration other"):
        plans(Wish("me", ("Hub",), to="new"), there)


def test_staged_ones_wait_for_somebody() -> None:
    (plan,) = plans(Wish("me", ("Hub",), to="new", staged=True), fleet())
    assert plan.spec.policy == Policy(verify_s=7.0, approvals=1)
    (plan,) = plans(Wish("me", ("Hub",), to="new", policy=Given(approvals=2), staged=True), fleet())
    assert plan.spec.policy == Policy(verify_s=7.0, approvals=2)


def test_a_rehearsal_asks_for_nobody_and_the_old_instances_are_there_for_the_next() -> None:
    there = fleet({"Hub": AGENTS["Hub"]}, count=2)
    doc = replace(there.agents["Hub"], version="v2", agent=replace(AGENTS["Hub"], args=("x",)))
    wish = Wish("me", ("Hub",), docs={"Hub": doc}, policy=Given(approvals=2), rehearse=True)
    first, second = plans(wish, there)
    assert [plan.spec.source.instance for plan in (first, second)] == ["Hub-1", "Hub-2"]
    assert [plan.spec.target.instance for plan in (first, second)] == ["Hub-3", "Hub-3"]
    assert (first.spec.rehearse, first.spec.policy.approvals) == (True, 0)
    shown = preview(first)
    assert ([step.name for step in shown.steps], shown.rehearse) == (["start"], True)


@pytest.mark.parametrize(
    ("wish", "error", "says"),
    [
        (Wish("me", ("Nobody",), to="new"), UnknownAgent, "no agent Nobody"),
        (Wish("me"), MigrationRefused, "no agent is named"),
        (Wish("me", leave="nowhere", to="new"), OutriderError, "there are: new, old"),
        (Wish("me", leave="old"), MigrationRefused, "not said where to"),
        (Wish("me", leave="new", to="old"), MigrationRefused, "nothing of that runs on new"),
        (Wish("me", ("Hub", "Planner"), to="new", source="Hub-1"), MigrationRefused, "instance of one agent"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(wish: Wish, error: type[OutriderError], says: str) -> None:
    with pytest.raises(error, match=says):
        plans(wish, fleet())


def test_a_preview_says_what_its_judge_could_see() -> None:
    (plan,) = plans(Wish("me", ("Hub",), to="new"), fleet(memory_mib=100))
    counts = Counts(10_000, 5, (9_000, 900, 100))
    shown = preview(plan, Traffic(counts, 20.0), measured=True)
    assert [step.name for step in shown.steps] == ["start", "canary", "shift", "verify"]
    assert [step.limit_s for step in shown.steps][1::2] == [10.0, 7.0]
    assert [(sensed.step, sensed.signal) for sensed in shown.judge] == [
        ("canary", "errors"), ("canary", "slow calls"), ("verify", "errors"), ("verify", "slow calls"),
    ]  # fmt: skip
    assert [sensed.samples for sensed in shown.judge] == [20, 20, 140, 140]
    assert shown.judge[0].detectable > shown.judge[2].detectable > shown.judge[2].tolerated
    assert shown.room == "new has 100 MiB of memory left without it"


def test_a_preview_says_whether_gpu_memory_is_judged() -> None:
    heavy = {"Hub": Agent(module="hub", resources=Resources(vram_mib=1000))}
    said = []
    for agents, gpus in ((heavy, (4000,)), (AGENTS, (4000,)), (AGENTS, ())):
        there = fleet({"Hub": agents["Hub"]})
        there = replace(there, hosts={name: HostDoc(Host(name, gpus_mib=gpus)) for name in there.hosts})
        said.append(preview(plans(Wish("me", ("Hub",), to="new"), there)[0]).vram)
    assert said == [
        "more than 1100 MiB of GPU memory is bad, where the driver on new tells it",
        "GPU memory is not judged: `resources.vram_mib` is not declared",
        "",
    ]


def test_a_preview_says_when_there_are_no_calls_to_judge_by_and_who_must_agree() -> None:
    (plan,) = plans(Wish("me", ("Hub",), to="new", policy=Given(canary=0, approvals=2)), fleet())
    shown = preview(plan, None, measured=True)
    assert [(step.name, step.approvals) for step in shown.steps] == [("start", 0), ("shift", 2), ("verify", 0)]
    assert [(sensed.signal, sensed.detectable) for sensed in shown.judge] == [("probes", 1.0)]
    assert preview(plan).judge == ()
    assert report([plan]).waves == (("Hub",),)
