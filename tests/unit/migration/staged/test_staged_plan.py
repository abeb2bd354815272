"""What can be asked for, and every reason why not."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from outrider.errors import MigrationRefused, UnknownAgent
from outrider.fleet.spec import Agent, Host, Resources
from outrider.migration.staged.plan import Ask, Fleet, planned, refusals
from outrider.migration.staged.records import Policy, Spec
from outrider.registry.layout import AgentDoc, HostDoc, Placed, PlacementDoc

CALLS: dict[str, Any] = {"module": "a", "ports": {"call": "auto"}}


def fleet(agent: Agent | None = None, *placed: Placed, **more: Any) -> Fleet:
    doc = AgentDoc("A", "f", agent or Agent(mode="singleton", **CALLS), "v1")
    instances = placed or (Placed("A-1", "h1", "v1"),)
    hosts = {name: HostDoc(Host(name, groups=("gpu",) if name != "h3" else ())) for name in ("h1", "h2", "h3")}
    return Fleet({"A": doc}, {"A": PlacementDoc("A", instances, **more)}, hosts)


def plan(asked: Ask, of: Fleet) -> Spec:
    return planned(asked, of, "m", 1.0, Policy())


def refused(asked: Ask, of: Fleet) -> str:
    with pytest.raises(MigrationRefused) as found:
        plan(asked, of)
    return "\n".join(found.value.problems)


@pytest.mark.parametrize(
    ("agent", "strategy"),
    [
        (Agent(mode="singleton", **CALLS), "singleton"),
        (Agent(mode="singleton", state=True, **CALLS), "state"),
        (Agent(mode="replicated", **CALLS), "replicated"),
        (Agent(mode="singleton", module="a", ports={"main": "auto"}), "cold"),
    ],
)
def test_the_strategy_follows_from_what_the_agent_is(agent: Agent, strategy: str) -> None:
    spec = plan(Ask("A", "me", to="h2"), fleet(agent))
    assert spec.strategy == strategy
    assert (spec.source.instance, spec.target.instance, spec.target.host) == ("A-1", "A-2", "h2")


def test_what_starts_only_when_the_old_one_has_ended_cannot_be_rehearsed() -> None:
    cold = Agent(mode="singleton", module="a", ports={"main": "auto"})
    assert plan(Ask("A", "me", to="h2"), fleet(cold))
    assert "A cannot be rehearsed: without" in refused(Ask("A", "me", to="h2", rehearse=True), fleet(cold))


def test_a_rehearsal_is_of_the_plan_from_this_host_and_version_to_that_one() -> None:
    real, rehearsal = (plan(Ask("A", "me", to="h2", rehearse=each), fleet()) for each in (False, True))
    assert rehearsal.plan == real.plan
    version = AgentDoc("A", "f", Agent(mode="singleton", **CALLS), "v2")
    others = [
        plan(Ask("A", "me", to="h1", doc=version), fleet()),
        plan(Ask("A", "me", to="h2", doc=version), fleet()),
        plan(Ask("A", "me", to="h2"), fleet(None, Placed("A-1", "h3", "v1"))),
        plan(Ask("A", "me", to="h2"), fleet(Agent(mode="replicated", **CALLS))),
    ]
    assert len({real.plan, *(other.plan for other in others)}) == 5


def test_a_version_changes_on_its_own_host() -> None:
    spec = plan(Ask("A", "me", doc=AgentDoc("A", "f", Agent(mode="singleton", **CALLS), "v2")), fleet())
    assert (spec.target.host, spec.target.version, spec.changes_version) == ("h1", "v2", True)


def test_the_place_is_one_that_the_fleet_file_allows() -> None:
    agent = Agent(mode="singleton", hosts=("gpu",), **CALLS)
    placed = Placed("A-1", "h1", "v1", "gpu")
    assert plan(Ask("A", "me", to="h2"), fleet(agent, placed)).target.entry == "gpu"
    assert "lets A run on gpu only" in refused(Ask("A", "me", to="h3"), fleet(agent, placed))


def test_what_has_no_room_is_told_what_is_lacking() -> None:
    agent = Agent(mode="singleton", resources=Resources(cpu=2), **CALLS)
    of = fleet(agent)
    hosts = {**of.hosts, "h2": HostDoc(Host("h2", cpu=1))}
    assert "1 cores left, wanted 2" in refused(Ask("A", "me", to="h2"), replace(of, hosts=hosts))


@pytest.mark.parametrize(
    ("asked", "of", "why"),
    [
        (Ask("A", "me"), fleet(), "A-1 is on h1 at version v1 already"),
        (Ask("A", "me", to="h9"), fleet(), "there is no host h9; there are: h1, h2, h3"),
        (Ask("A", "me", source="A-7", to="h2"), fleet(), "has no instance A-7; it has A-1"),
        (Ask("A", "me", to="h2"), fleet(None, migration="other"), "being moved already, by migration other"),
        (
            Ask("A", "me", to="h2"),
            fleet(None, Placed("A-1", "h1", "v1", state="stopped")),
            "no instance of A is to run",
        ),
        (
            Ask("A", "me", to="h3"),
            fleet(None, Placed("A-1", "h1", "v1"), Placed("A-2", "h2", "v1")),
            "A has 2 instances: A-1, A-2",
        ),
        (
            Ask("A", "me", source="A-1", to="h3"),
            fleet(None, Placed("A-1", "h1", "v1"), Placed("A-1", "h2", "v1")),
            "moving between two hosts",
        ),
        (
            Ask("A", "me", to="h2"),
            fleet(Agent(mode="singleton", module="a", state=True, ports={"main": "auto"})),
            "keeps state and does not serve calls",
        ),
    ],
)
def test_every_reason_is_said(asked: Ask, of: Fleet, why: str) -> None:
    assert why in refused(asked, of)


def test_a_name_that_somebody_else_got_meanwhile_is_not_taken() -> None:
    spec = plan(Ask("A", "me", to="h2"), fleet())
    meanwhile = fleet(None, Placed("A-1", "h1", "v1"), Placed("A-2", "h3", "v1"))
    assert any("there is an instance A-2 meanwhile" in why for why in refusals(spec, meanwhile))
    assert not list(refusals(spec, fleet()))


def test_state_is_not_moved_beside_a_standby_that_lacks_it() -> None:
    agent = Agent(mode="singleton", state=True, standbys=1, **CALLS)
    of = fleet(agent, Placed("A-1", "h1", "v1"), Placed("A-2", "h3", "v1"))
    assert "A-2 would take over with old state" in refused(Ask("A", "me", source="A-1", to="h2"), of)


def test_a_host_in_trouble_or_drained_takes_nothing() -> None:
    of = replace(fleet(), trouble={"h2": "is lost"})
    assert "h2 is lost" in refused(Ask("A", "me", to="h2"), of)
    hosts = {**of.hosts, "h3": replace(of.hosts["h3"], state="drained", reason="a disk")}
    assert "h3 is drained: a disk" in refused(Ask("A", "me", to="h3"), replace(of, hosts=hosts))


def test_an_agent_that_is_not_there_is_said_so() -> None:
    with pytest.raises(UnknownAgent, match="no agent B"):
        plan(Ask("B", "me", to="h2"), fleet())


def test_what_sits_on_a_fixed_port_moves_cold_on_its_own_host() -> None:
    agent = Agent(mode="singleton", module="a", ports={"main": 8000})
    spec = plan(Ask("A", "me", doc=AgentDoc("A", "f", agent, "v2")), fleet(agent))
    assert spec.strategy == "cold"
    warm = Agent(mode="singleton", module="a", ports={"main": 8000, "call": "auto"})
    assert "port 8000 is taken by A-1" in refused(Ask("A", "me", doc=AgentDoc("A", "f", warm, "v2")), fleet(warm))
