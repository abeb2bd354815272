"""Placement is repeatable, sticky, and honours what agents ask for."""

from __future__ import annotations

import pytest

from outrider.errors import FleetError
from outrider.fleet.placement import Slot, place
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
