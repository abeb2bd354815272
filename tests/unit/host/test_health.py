"""What an instance is said to be, by its probes' verdicts and by what it waits for."""

from __future__ import annotations

from typing import Any

import pytest

from outrider.fleet.spec import Agent
from outrider.host.health import COLD, Health
from outrider.host.state import Local
from outrider.registry.layout import AgentDoc, Placed

AGENT = Agent()


class Probes:
    """The probes of the instance's process, whose verdict the test says."""

    def __call__(self, local: Local, agent: Agent, verdict: Any) -> Probes:
        del agent
        self.say = lambda healthy, detail="": verdict(local.instance, healthy, detail)
        return self

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False


class Instance:
    """One that lacks what the test says; `told` is what the host was told."""

    def __init__(self) -> None:
        self.lacking = ""
        self.told: list[tuple[str, str]] = []
        self.probes = Probes()
        local = Local(AgentDoc("Echo", "f", AGENT, "v1"), Placed("Echo-1", "pc1", "v1"), role="replica")
        self.health = Health(local, self.probes, lambda _: self.lacking, self._changed)

    def _changed(self, local: Local) -> None:
        self.told.append((local.status, local.detail))


@pytest.fixture
def instance() -> Instance:
    made = Instance()
    made.health.probe(AGENT)
    return made


def test_one_that_was_never_ready_is_starting_and_later_it_is_ill(instance: Instance) -> None:
    instance.probes.say(False, "refused")
    instance.probes.say(True)
    instance.probes.say(False, "status 500")
    assert instance.told == [("starting", "starting: refused"), ("passing", "ok"), ("critical", "probe: status 500")]


def test_it_is_steady_since_it_was_ready_first(instance: Instance) -> None:
    instance.probes.say(True)
    first = instance.health.ready_at
    instance.probes.say(False)
    instance.probes.say(True)
    assert instance.health.ready_at == first


def test_the_host_is_told_only_what_is_new(instance: Instance) -> None:
    instance.probes.say(True)
    instance.health.mark("passing", "ok")
    assert instance.told == [("passing", "ok")]


def test_one_that_lacks_a_need_says_so_while_it_is_well(instance: Instance) -> None:
    instance.lacking = "nobody serves Store"
    instance.health.needs_changed()
    assert instance.told == []
    instance.probes.say(True)
    instance.lacking = ""
    instance.health.needs_changed()
    assert instance.told == [("warning", "nobody serves Store"), ("passing", "ok")]


def test_a_generation_is_shown_once_what_was_started_for_it_is_well(instance: Instance) -> None:
    instance.health.generation = 3
    instance.probes.say(False, "refused")
    assert instance.health.local.generation == 0
    instance.probes.say(True)
    assert instance.health.local.generation == 3


def test_a_cold_standby_says_what_it_waits_for(instance: Instance) -> None:
    instance.health.cold = True
    instance.health.mark_well()
    assert instance.told == [("passing", COLD)]


def test_nothing_is_asked_once_the_process_is_gone(instance: Instance) -> None:
    assert instance.probes.running
    instance.health.stop_probing()
    assert not instance.probes.running
