"""Decisions follow from the picture alone: what is lost goes where there is room, what runs stays."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from outrider.failover.decision import Decision, applied, said
from outrider.failover.placer import HAND_OVER_S, STANDBY_S, STEADY_S, Picture, decide, wishes
from outrider.fleet.placement import solve
from outrider.fleet.spec import Agent, Fleet, Host, OnHost, Resources
from outrider.registry.layout import AgentDoc, Handover, HostDoc, Placed, PlacementDoc
from outrider.registry.leases import LeaseDoc

HOSTS = tuple(Host(name, groups=("rack",)) for name in "abc")
NOW = 1000.0
LOST = NOW - 1.0


def picture(
    agents: dict[str, Agent],
    placed: dict[str, list[Placed]] | None = None,
    hosts: tuple[Host, ...] = HOSTS,
    **keys: Any,
) -> Picture:
    """A fleet that is placed as its file would be, or as `placed` says."""
    if placed is None:
        slots, _ = solve(Fleet("", agents), hosts, {})
        placed = {name: [Placed(s.instance, s.host, "v1", s.entry) for s in them] for name, them in slots.items()}
    return Picture(
        {name: AgentDoc(name, "lab", agent, "v1") for name, agent in agents.items()},
        {name: PlacementDoc(name, tuple(them)) for name, them in placed.items()},
        {host.name: HostDoc(host) for host in hosts},
        NOW,
        **keys,
    )


def drained(picture: Picture, host: str, reason: str = "") -> Picture:
    hosts = {**picture.hosts, host: replace(picture.hosts[host], state="drained", reason=reason)}
    return replace(picture, hosts=hosts)


def carried_out(picture: Picture, made: tuple[Decision, ...]) -> Picture:
    """The same after the decisions were written."""
    docs = {
        name: applied(doc, picture.agents[name], [d for d in made if d.agent == name], 7.0)
        for name, doc in picture.placements.items()
    }
    return replace(picture, placements=docs)


def where(picture: Picture, agent: str) -> list[str]:
    return [placed.host for placed in picture.placements[agent].instances]


ONE = {"A": Agent(module="x")}
ON_A = {"A": [Placed("A-1", "a", "v1")]}


def test_a_lost_hosts_instance_goes_elsewhere_and_says_why() -> None:
    seen = picture(ONE, ON_A, lost={"a": LOST})
    (made,) = decide(seen).made
    assert (made.source, made.target, made.reason, made.how) == ("a", "b", "a is lost", "move")
    doc = carried_out(seen, (made,)).placements["A"]
    assert doc.instances == (Placed("A-1", "b", "v1", home="a"),)
    assert doc.reason == "A-1 moves from a to b: a is lost"
    assert doc.since == 7.0


def test_nothing_is_decided_too_early_or_while_nothing_is_lost() -> None:
    assert decide(picture(ONE, ON_A)).made == ()
    assert decide(picture(ONE, ON_A, lost={"a": NOW - 0.99})).made == ()
    assert decide(picture(ONE, ON_A, lost={"b": LOST})).made == ()


def test_a_mass_failure_moves_nothing_and_is_said() -> None:
    found = decide(picture(ONE, ON_A, lost={"a": LOST, "b": NOW}))
    assert found.made == ()
    assert "more than half of the hosts seem lost (a, b)" in found.halted
    two = decide(picture(ONE, ON_A, HOSTS[:2], lost={"a": LOST}))
    assert two.made[0].target == "b"


def test_what_can_go_nowhere_is_named_with_what_each_host_lacks() -> None:
    bound = {"A": Agent(module="x", hosts=("a",)), "B": Agent(module="x", resources=Resources(memory_mib=9))}
    hosts = (Host("a"), Host("b", memory_mib=8), Host("c", memory_mib=1))
    placed = {"A": [Placed("A-1", "a", "v1", "a")], "B": [Placed("B-1", "a", "v1")]}
    reasons = {d.agent: d.reason for d in decide(picture(bound, placed, hosts, lost={"a": LOST})).made}
    assert reasons["A"] == "a is lost; it may run on a alone"
    expected = "a: is lost; b: 8 MiB of memory left, wanted 9; c: 1 MiB of memory left, wanted 9"
    assert reasons["B"] == f"a is lost; no other host may run it: {expected}"


def test_higher_priority_gets_the_room() -> None:
    agents = {
        name: Agent(module="x", resources=Resources(memory_mib=10, priority=priority))
        for name, priority in (("Low", 10), ("High", 90))
    }
    hosts = (Host("a"), Host("b", memory_mib=10), Host("c", memory_mib=0))
    placed = {name: [Placed(f"{name}-1", "a", "v1")] for name in agents}
    made = decide(picture(agents, placed, hosts, lost={"a": LOST})).made
    assert [(d.agent, d.target) for d in made] == [("High", "b"), ("Low", None)]


def test_vram_ports_and_troubled_hosts_count() -> None:
    agent = Agent(module="x", ports={"main": 80}, resources=Resources(vram_mib=8))
    hosts = (Host("a", gpus_mib=(8,)), Host("b", gpus_mib=(8, 8)), Host("c", gpus_mib=(4,)), Host("d", gpus_mib=(8,)))
    placed = {"A": [Placed("A-1", "a", "v1")], "B": [Placed("B-1", "b", "v1")]}
    seen = picture({"A": agent, "B": agent}, placed, hosts, lost={"a": LOST}, trouble={"d": "has no shim"})
    (made,) = decide(seen).made
    assert made.target is None
    assert "b: port 80 is taken by B-1; c: 4 MiB left on its emptiest GPU, wanted 8; d: has no shim" in made.reason


def test_starts_are_bounded_and_go_on_when_the_first_pass() -> None:
    agents = {f"A{n:02}": Agent(module="x", resources=Resources(priority=n)) for n in range(20)}
    placed = {name: [Placed(f"{name}-1", "a", "v1")] for name in agents}
    seen = picture(agents, placed, lost={"a": LOST})
    first = decide(seen).made
    assert Counter(d.target for d in first) == {"b": 4, "c": 4}
    assert [d.agent for d in first] == [f"A{n:02}" for n in range(19, 11, -1)]
    starting = frozenset((d.instance, str(d.target)) for d in first)
    waiting = replace(carried_out(seen, first), starting=starting)
    assert decide(waiting).made == ()
    assert len(decide(replace(waiting, starting=frozenset(list(starting)[:5]))).made) == 3


def test_what_returns_flaps_nothing() -> None:
    moved = carried_out(picture(ONE, ON_A, lost={"a": LOST}), decide(picture(ONE, ON_A, lost={"a": LOST})).made)
    assert decide(replace(moved, lost={}, well={"a": 0.0})).made == ()


def test_with_a_time_for_it_it_goes_home_after_that() -> None:
    agents = {"A": Agent(module="x", mode="singleton", failback_s=60.0)}
    away = {"A": [Placed("A-1", "b", "v1", home="a")]}
    assert decide(picture(agents, away, well={"a": NOW - 59})).made == ()
    seen = picture(agents, away, well={"a": NOW - 60})
    (made,) = decide(seen).made
    assert (made.target, made.reason) == ("a", "a, its home, has been well for 60 s")
    assert carried_out(seen, (made,)).placements["A"].instances == (Placed("A-1", "a", "v1"),)
    assert decide(drained(seen, "a")).made == ()


@pytest.mark.parametrize(
    ("window", "clock", "goes"),
    [
        ("01:00-05:00", "00:59:59", False),
        ("01:00-05:00", "01:00:00", True),
        ("01:00-05:00", "04:59:59", True),
        ("01:00-05:00", "05:00:00", False),
        ("22:30-05:00", "22:29:59", False),
        ("22:30-05:00", "22:30:00", True),
        ("22:30-05:00", "00:00:00", True),
        ("22:30-05:00", "05:00:00", False),
        (None, "12:00:00", True),
    ],
)
def test_it_goes_home_in_its_window_of_the_day_alone(window: str | None, clock: str, goes: bool) -> None:
    agents = {"A": Agent(module="x", failback_s=60.0, failback_window=window)}
    away = {"A": [Placed("A-1", "b", "v1", home="a")]}
    wall = datetime.fromisoformat(f"2026-03-29T{clock}+00:00").timestamp()
    assert bool(decide(picture(agents, away, well={"a": 0.0}, wall=wall)).made) is goes


def test_what_has_begun_in_its_window_is_finished_after_it() -> None:
    agents = {"A": Agent(module="x", failback_s=60.0, failback_window="01:00-05:00")}
    both = {"A": [Placed("A-1", "b", "v1", home="a"), Placed("A-1", "a", "v1")]}
    (made,) = decide(picture(agents, both, passing={("A-1", "a"): 0.0}, wall=12 * 3600.0)).made
    assert (made.how, made.source) == ("drop", "b")


def test_a_standby_takes_over_by_itself_and_is_made_good_later() -> None:
    agents = {"A": Agent(module="x", mode="singleton", standbys=1, ports={"call": "auto"})}
    placed = {"A": [Placed("A-1", "a", "v1"), Placed("A-2", "b", "v1")]}
    assert decide(picture(agents, placed, lost={"a": LOST})).made == ()
    (made,) = decide(picture(agents, placed, lost={"a": NOW - STANDBY_S})).made
    assert (made.instance, made.target) == ("A-1", "c")
    alone = {"A": [Placed("A-1", "a", "v1"), Placed("A-2", "b", "v1", state="stopped")]}
    assert decide(picture(agents, alone, lost={"a": LOST})).made[0].target == "c"


def test_a_singleton_that_nothing_would_stop_is_not_started_a_second_time() -> None:
    """Its host may only be cut off, and the process there knows nothing of leases."""
    stops: dict[str, Agent] = {
        "A": Agent(module="x", mode="singleton", ports={"main": 80, "call": 81}),
        "B": Agent(module="x", mode="singleton", ports={"main": 80}, fence="deadman"),
        "C": Agent(module="x", mode="singleton", ports={"main": 80}),
    }
    targets = {}
    for name, agent in stops.items():
        placed = {name: [Placed(f"{name}-1", "a", "v1")]}
        (made,) = decide(picture({name: agent}, placed, lost={"a": LOST})).made
        targets[name] = made.target
    assert targets == {"A": "b", "B": "b", "C": None}
    assert "nor has a dead-man (`fence: deadman`), so nothing stops it there" in made.reason


def test_a_drained_hosts_replica_leaves_only_when_its_successor_is_well() -> None:
    seen = drained(picture(ONE, ON_A), "a", "a new disk")
    (made,) = decide(seen).made
    assert (made.how, made.target, made.reason) == ("add", "b", "a is drained: a new disk")
    both = carried_out(seen, (made,))
    assert where(both, "A") == ["a", "b"]
    assert decide(both).made == ()
    assert decide(replace(both, passing={("A-1", "b"): NOW - STEADY_S / 2})).made == ()
    (leaves,) = decide(replace(both, passing={("A-1", "b"): NOW - STEADY_S})).made
    assert (leaves.how, leaves.source) == ("drop", "a")
    after = carried_out(both, (leaves,))
    assert after.placements["A"].instances == (Placed("A-1", "b", "v1", home="a"),)
    assert decide(after).made == ()


def test_a_move_whose_either_end_is_lost_keeps_the_other() -> None:
    both = picture(ONE, {"A": [Placed("A-1", "a", "v1"), Placed("A-1", "b", "v1", home="a")]})
    assert where(carried_out(both, decide(replace(both, lost={"b": LOST})).made), "A") == ["a"]
    assert where(carried_out(both, decide(replace(both, lost={"a": LOST})).made), "A") == ["b"]


def test_a_drained_hosts_singleton_is_handed_over_and_what_is_stopped_stays() -> None:
    agents = {"A": Agent(module="x", mode="singleton"), "B": Agent(module="x")}
    placed = {"A": [Placed("A-1", "a", "v1")], "B": [Placed("B-1", "a", "v1", state="stopped")]}
    (made,) = decide(drained(picture(agents, placed), "a")).made
    assert (made.agent, made.how, made.target) == ("A", "move", "b")


def test_a_singleton_that_serves_calls_passes_its_lease_on_before_it_leaves() -> None:
    agents = {"A": Agent(module="x", mode="singleton", ports={"call": "auto"})}
    held = LeaseDoc("A", epoch=7, holder="A-1", host="a", state="held")
    seen = replace(drained(picture(agents, ON_A), "a"), leases={"A": held})
    (made,) = decide(seen).made
    assert (made.how, made.target) == ("add", "b")
    both = replace(carried_out(seen, (made,)), passing={("A-1", "b"): NOW - STEADY_S})
    (passes,) = decide(both).made
    assert said(passes) == "A-1 passes its lease from a to b: it passes on b"
    asked = carried_out(both, (passes,))
    assert asked.placements["A"].handover == Handover("A-1", "b", 7)
    assert where(asked, "A") == ["a", "b"]
    assert decide(asked).made == ()
    moved = replace(asked, leases={"A": replace(held, epoch=8, host="b")})
    (leaves,) = decide(moved).made
    assert (leaves.how, leaves.source) == ("drop", "a")
    assert carried_out(moved, (leaves,)).placements["A"].handover is None
    # One that does not pass it on is ended in time, and one that nobody else may follow at once.
    (ended,) = decide(replace(asked, passing={("A-1", "b"): NOW - STEADY_S - HAND_OVER_S})).made
    assert ended.how == "drop"
    (alone,) = decide(replace(both, leases={"A": replace(held, sole=True)})).made
    assert alone.how == "drop"


def test_entries_of_hosts_come_along() -> None:
    agent = Agent(module="x", count=1, hosts={"a": None, "b": OnHost(config={"n": 1})})
    seen = picture({"A": agent}, {"A": [Placed("A-1", "a", "v1", "a")]}, lost={"a": LOST})
    assert carried_out(seen, decide(seen).made).placements["A"].instances[0].entry == "b"


_agents = st.builds(
    Agent,
    module=st.just("x"),
    mode=st.sampled_from(["replicated", "singleton"]),
    hosts=st.lists(st.sampled_from(["a", "b", "c", "rack"]), max_size=3, unique=True).map(tuple),
    ports=st.dictionaries(st.just("main"), st.sampled_from([80, 81, "auto"])),
    failback_s=st.none() | st.just(5.0),
    resources=st.builds(Resources, memory_mib=st.none() | st.integers(1, 60), priority=st.integers(0, 100)),
)
SMALL = (
    Host("a", groups=("rack",), memory_mib=100),
    Host("b", groups=("rack",), memory_mib=90),
    Host("c", memory_mib=50),
    Host("d", memory_mib=80),
)
_names = st.sampled_from(["a", "b", "c", "d"])


@st.composite
def _pictures(draw: st.DrawFn) -> Picture:
    agents = draw(st.dictionaries(st.sampled_from("ABCDEF"), _agents))
    seen = picture(agents, hosts=SMALL)
    lost = draw(st.lists(_names, max_size=2, unique=True))
    seen = replace(seen, lost=dict.fromkeys(lost, LOST), well={h.name: 0.0 for h in SMALL if h.name not in lost})
    for host in draw(st.lists(_names, max_size=1)):
        seen = drained(seen, host)
    return seen


def _shuffled(seen: Picture, random: Random) -> Picture:
    def mixed(items: Any) -> dict[Any, Any]:
        return dict(sorted(items.items(), key=lambda _: random.random()))

    return replace(
        seen,
        agents=mixed(seen.agents),
        placements=mixed(seen.placements),
        hosts=mixed(seen.hosts),
        lost=mixed(seen.lost),
    )


@given(_pictures(), st.randoms(use_true_random=False))
def test_same_inputs_same_decisions_in_any_order(seen: Picture, random: Random) -> None:
    assert decide(_shuffled(seen, random)) == decide(seen)


@given(_pictures())
def test_rooms_are_never_overfull_and_nothing_is_lost_or_made_twice(seen: Picture) -> None:
    before = seen
    for _ in range(30):
        made = decide(seen).made
        seen = carried_out(seen, made)
        every = [(p.instance, p.host) for doc in seen.placements.values() for p in doc.instances]
        seen = replace(seen, passing=dict.fromkeys(every, NOW - STEADY_S))
        _check_rooms(seen, before)
        if not any(decision.target for decision in made):
            break
    else:
        raise AssertionError("it never comes to rest")
    for name, doc in seen.placements.items():
        assert [p.instance for p in doc.instances] == [p.instance for p in before.placements[name].instances]


def _check_rooms(seen: Picture, before: Picture) -> None:
    used, ports = Counter[str](), Counter[tuple[str, object]]()
    for name, doc in seen.placements.items():
        agent = seen.agents[name].agent
        spots = Counter(placed.instance for placed in doc.instances)
        assert all(count <= (2 if agent.mode == "replicated" else 1) for count in spots.values())
        for placed in doc.instances:
            assert not placed.entry or seen.hosts[placed.host].host.answers_to(placed.entry)
            if placed not in before.placements[name].instances:
                assert placed.host not in seen.lost
                assert not seen.hosts[placed.host].closed
            if placed.host not in seen.lost:
                used[placed.host] += agent.resources.memory_mib or 0
                ports.update((placed.host, port) for port in agent.ports.values() if port != "auto")
    assert all(used[host.name] <= (host.memory_mib or 0) for host in SMALL)
    assert all(count == 1 for count in ports.values())


@given(_pictures())
def test_nothing_moves_while_nothing_is_lost_or_drained(seen: Picture) -> None:
    hosts = {name: HostDoc(doc.host) for name, doc in seen.hosts.items()}
    assert wishes(replace(seen, lost={}, hosts=hosts)) == []
