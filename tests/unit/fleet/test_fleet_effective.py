"""An agent as it runs in one place, and the version that says when it must restart."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from outrider.fleet.effective import agent_on, default_probes, probe_port, version_of
from outrider.fleet.spec import Agent, Need, OnHost, Probe, Resources

AGENT = Agent(
    module="x",
    ports={"main": 1, "health": 2},
    environment={"A": "1", "B": "1"},
    config={"deep": {"a": 1}, "keep": 1},
    needs=("N",),
    hosts={"one": None, "two": OnHost({"main": 9}, {"B": "2"}, {"deep": {"b": 2}}, ())},
)


def test_what_differs_on_a_host_is_merged_by_key() -> None:
    there = agent_on(AGENT, "two")
    assert there.ports == {"main": 9, "health": 2}
    assert there.environment == {"A": "1", "B": "2"}
    assert there.config == {"deep": {"b": 2}, "keep": 1}
    assert there.needs == ()
    assert agent_on(AGENT, "one").needs == ("N",)
    assert agent_on(AGENT, "elsewhere") is AGENT


@pytest.mark.parametrize(
    ("ports", "probes", "asked"),
    [
        ({"main": 1, "health": 2}, (Probe(type="http"),), "health"),
        ({"main": 1}, (Probe(type="tcp"),), "main"),
        ({}, (), ""),
    ],
)
def test_without_probes_an_agent_is_asked_where_it_can_be(
    ports: dict[str, int], probes: tuple[Probe, ...], asked: str
) -> None:
    agent = Agent(module="x", ports=ports)
    assert default_probes(agent) == probes
    assert [probe_port(agent, probe) for probe in probes] == [asked] * len(probes)
    assert probe_port(agent, Probe(port="other")) == "other"


@pytest.mark.parametrize(
    "other",
    [
        {"tags": ("x",)},
        {"tier": "t"},
        {"description": "d"},
        {"labels": {"a": "b"}},
        {"failback_s": 1.0, "failback_window": "01:00-02:00"},
        {"needs": (Need("N"),)},
        {"environment": {"B": "1", "A": "1"}},
    ],
)
def test_what_no_process_sees_keeps_the_version(other: dict[str, object]) -> None:
    assert version_of(replace(AGENT, **other), "r") == version_of(AGENT, "r")


@pytest.mark.parametrize(
    "other",
    [
        {"environment": {"A": "2", "B": "1"}},
        {"config": {}},
        {"args": ("x",)},
        {"ports": {"main": 3, "health": 2}},
        {"user": "u"},
        {"fence": "deadman"},
        {"secrets": {"A": "/f"}},
        {"needs": ()},
        {"resources": Resources(threads=2)},
        {"hosts": {"one": OnHost(environment={"A": "2"}), "two": AGENT.on_host()["two"]}},
    ],
)
def test_what_a_process_sees_changes_the_version(other: dict[str, object]) -> None:
    assert version_of(replace(AGENT, **other), "r") != version_of(AGENT, "r")


def test_a_version_is_twelve_hex_digits_and_the_same_in_every_process() -> None:
    assert version_of(Agent(module="x"), "release") == version_of(Agent(module="x"), "release")
    assert version_of(Agent(module="x"), "release") == KNOWN
    assert version_of(Agent(module="x"), "other") != KNOWN


# Frozen: another value here restarts every agent of every fleet at the next upgrade of Outrider.
KNOWN = "01c482960724"
