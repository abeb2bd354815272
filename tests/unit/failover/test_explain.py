"""Why an agent is where it is, and what would become of it."""

from __future__ import annotations

import pytest

from outrider.errors import UnknownAgent
from outrider.failover.explain import IfLost, Left, explain, host_report
from outrider.failover.placer import Picture
from outrider.fleet.spec import Agent, Host, Resources
from outrider.registry.layout import AgentDoc, HostDoc, Placed, PlacementDoc


def picture() -> Picture:
    agents = {
        "A": Agent(module="x", hosts=("gpus",), resources=Resources(memory_mib=60)),
        "B": Agent(module="x", hosts=("a",)),
        "C": Agent(module="x", resources=Resources(memory_mib=10)),
    }
    hosts = (
        Host("a", groups=("gpus",), memory_mib=100),
        Host("b", groups=("gpus",), memory_mib=65, cpu=4),
        Host("c"),
    )
    placements = {
        "A": PlacementDoc("A", (Placed("A-1", "a", "v1", "gpus", home="b"),), "A-1 moves from b to a: b is lost", 5.0),
        "B": PlacementDoc("B", (Placed("B-1", "a", "v1", "a"),), "fleet file"),
        "C": PlacementDoc("C", (Placed("C-1", "a", "v1"), Placed("C-1", "b", "v1", home="a"))),
    }
    docs = {name: AgentDoc(name, "lab", agent, "v1") for name, agent in agents.items()}
    return Picture(docs, placements, {host.name: HostDoc(host) for host in hosts}, 1e7)


def test_every_host_is_shown_with_what_it_offers_or_lacks() -> None:
    found = explain(picture(), "A")
    row = found.instances[0]
    assert (row.host, row.home, row.reason, row.since) == ("a", "b", "A-1 moves from b to a: b is lost", 5.0)
    assert {host.host: host.lacks for host in found.hosts} == {
        "a": "30 MiB of memory left, wanted 60",
        "b": "55 MiB of memory left, wanted 60",
        "c": "is not among the hosts of A",
    }
    assert (found.hosts[1].memory_mib, found.hosts[1].cpu, found.hosts[2].cpu) == (55, 4.0, None)


def test_who_would_get_it_is_what_the_placer_would_decide() -> None:
    seen = picture()
    refusal = "a is lost; no other host may run it: a: is lost; b: 55 MiB of memory left, wanted 60"
    assert explain(seen, "A").if_lost == (IfLost("A-1", "a", None, refusal),)
    assert explain(seen, "B").if_lost == (IfLost("B-1", "a", None, "a is lost; it may run on a alone"),)
    with pytest.raises(UnknownAgent, match="no agent D is placed"):
        explain(seen, "D")


def test_what_is_still_on_a_drained_host_says_where_it_goes_or_why_it_stays() -> None:
    seen = picture()
    hosts = {**seen.hosts, "a": HostDoc(seen.hosts["a"].host, "drained", "a new disk", 7.0)}
    seen = Picture(seen.agents, seen.placements, hosts, seen.now)
    report = host_report(seen, "a", frozenset({"A-1", "Old-1"}), "c")
    assert (report.state, report.reason, report.placer, report.leaving) == ("drained", "a new disk", "c", ("Old-1",))
    assert report.left[0].stuck.startswith("a is drained: a new disk; no other host may run it")
    assert report.left[1:] == (
        Left("B", "B-1", "", "a is drained: a new disk; it may run on a alone"),
        Left("C", "C-1", "b", ""),
    )
