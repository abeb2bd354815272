"""Placement is repeatable, sticky, and honours what agents ask for."""

from __future__ import annotations

import time
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from outrider.errors import FleetError
from outrider.fleet.placement import Slot, place, solve
from outrider.fleet.spec import Agent, Fleet, Host, OnHost, Resources

HOSTS = (Host("a", groups=("rack",)), Host("b", groups=("rack",)), Host("c"))


def fleet(**agents: Agent) -> Fleet:
    return Fleet("lab", agents)


def test_replicas_spread_over_hosts() -> None:
    slots = place(fleet(A=Agent(module="x", count=3)), HOSTS, {})["A"]
    assert {slot.host for slot in slots} == {"a", "b", "c"}
    assert [slot.instance for slot in slots] == ["A-1", "A-2", "A-3"]


def test_each_entry_of_hosts_gets_an_instance() -> None:
    agent = Agent(module="x", hosts={"a": None, "c": OnHost(ports={"main": 9})}, ports={"main": 8})
    assert place(fleet(A=agent), HOSTS, {})["A"] == (Slot("A-1", "a", "a"), Slot("A-2", "c", "c"))


def test_a_group_is_any_of_its_hosts_and_what_runs_stays() -> None:
    agent = Agent(module="x", hosts=("rack",))
    assert place(fleet(A=agent), HOSTS, {})["A"][0].host == "a"
    assert place(fleet(A=agent), HOSTS, {"A": [Slot("A-1", "b", "rack")]})["A"] == (Slot("A-1", "b", "rack"),)
    assert place(fleet(A=agent), HOSTS, {"A": [Slot("A-1", "gone", "rack")]})["A"][0].host == "a"


def test_higher_priority_is_placed_first_and_the_rest_is_refused_with_reasons() -> None:
    host = (Host("a", memory_mib=100),)
    small = Agent(module="x", resources=Resources(memory_mib=60, priority=90))
    large = Agent(module="x", resources=Resources(memory_mib=80, priority=10))
    with pytest.raises(FleetError) as caught:
        place(fleet(Large=large, Small=small), host, {})
    assert caught.value.problems == ["Large-1 cannot be placed: a: 40 MiB of memory left, wanted 80"]


def test_one_fixed_port_is_one_instance_a_host() -> None:
    agent = Agent(module="x", count=2, ports={"main": 80})
    assert {slot.host for slot in place(fleet(A=agent), HOSTS, {})["A"]} == {"a", "b"}
    with pytest.raises(FleetError, match="port 80 is taken by A-1"):
        place(fleet(A=agent), HOSTS[:1], {})


def test_whoever_can_go_to_one_host_only_is_placed_before_whoever_can_go_anywhere() -> None:
    hosts = (Host("a", memory_mib=100), Host("b", memory_mib=100))
    anywhere = Agent(module="x", resources=Resources(memory_mib=100))
    slots = place(fleet(Any=anywhere, Bound=replace(anywhere, hosts=("a",))), hosts, {})
    assert (slots["Bound"][0].host, slots["Any"][0].host) == ("a", "b")


def test_a_model_goes_to_the_fullest_gpu_with_room() -> None:
    hosts = (Host("a", gpus_mib=(24, 12)),)
    small, large = (
        Agent(module="x", resources=Resources(vram_mib=size, priority=p)) for size, p in ((12, 90), (24, 10))
    )
    assert place(fleet(Small=small, Large=large), hosts, {})["Large"][0].host == "a"
    with pytest.raises(FleetError, match="0 MiB left on its emptiest GPU, wanted 1"):
        place(fleet(S=small, L=large, More=Agent(module="x", resources=Resources(vram_mib=1, priority=1))), hosts, {})


def test_what_runs_gives_way_only_if_the_fleet_does_not_fit_otherwise() -> None:
    hosts = (Host("a", memory_mib=100), Host("b", memory_mib=60))
    low = Agent(module="x", resources=Resources(memory_mib=60, priority=10))
    high = Agent(module="x", resources=Resources(memory_mib=60, priority=90))
    running = {"Low": [Slot("Low-1", "a")]}
    assert place(fleet(Low=low, High=high), hosts, running)["Low"][0].host == "a"
    slots = place(fleet(Low=low, High=replace(high, resources=Resources(memory_mib=90, priority=90))), hosts, running)
    assert (slots["High"][0].host, slots["Low"][0].host) == ("a", "b")


def test_labels_and_every_reason_are_named() -> None:
    agent = Agent(module="x", labels={"disk": "ssd"})
    hosts = (Host("a", labels={"disk": "hdd"}), Host("b"))
    with pytest.raises(FleetError) as caught:
        place(fleet(A=agent, B=replace(agent, hosts=("gone",))), hosts, {})
    assert caught.value.problems == [
        "B-1 cannot be placed: gone: no such host or group",
        "A-1 cannot be placed: a: label disk is hdd, wanted ssd; b: label disk is missing, wanted ssd",
    ]


_agents = st.builds(
    Agent,
    module=st.just("x"),
    hosts=st.lists(st.sampled_from(["a", "b", "c", "rack"]), max_size=3, unique=True).map(tuple),
    count=st.none() | st.integers(0, 3),
    ports=st.dictionaries(st.just("main"), st.sampled_from([80, 81, "auto"])),
    resources=st.builds(Resources, memory_mib=st.none() | st.integers(1, 60), priority=st.integers(0, 100)),
)
SMALL = (Host("a", groups=("rack",), memory_mib=100), Host("b", groups=("rack",)), Host("c", memory_mib=50))


@given(st.dictionaries(st.sampled_from("ABCD"), _agents), st.randoms(use_true_random=False))
def test_a_placement_keeps_every_promise_and_stays(agents: dict[str, Agent], random: Random) -> None:
    made = Fleet("lab", agents)
    slots, unplaced = solve(made, SMALL, {})
    shuffled = sorted(SMALL, key=lambda host: random.random())
    assert solve(Fleet("lab", dict(reversed(agents.items()))), shuffled, {})[0] == slots
    used = Counter[str]()
    ports = Counter[tuple[str, object]]()
    for name, them in slots.items():
        assert len(them) + sum(item.agent == name for item in unplaced) == agents[name].instance_count()
        for slot in them:
            host = next(host for host in SMALL if host.name == slot.host)
            assert not slot.entry or host.answers_to(slot.entry)
            used[slot.host] += agents[name].resources.memory_mib or 0
            ports.update((slot.host, port) for port in agents[name].ports.values() if port != "auto")
    assert all(used[host.name] <= (host.memory_mib or 10**9) for host in SMALL)
    assert all(count == 1 for count in ports.values())
    if not unplaced:
        assert solve(made, SMALL, slots) == (slots, ())


def test_a_thousand_agents_on_fifty_hosts_take_a_moment() -> None:
    hosts = [Host(f"h{number}", cpu=40, groups=("rack",)) for number in range(50)]
    agents = {f"A{number}": Agent(module="x", hosts=("rack",), resources=Resources(cpu=1)) for number in range(1000)}
    began_s = time.process_time()
    slots = place(Fleet("lab", agents), hosts, {})
    assert time.process_time() - began_s < 5
    assert set(Counter(slot.host for them in slots.values() for slot in them).values()) == {20}
