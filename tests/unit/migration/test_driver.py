"""A rollout against a simulated fleet, where time passes only while the driver waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from outrider.errors import ConsulConflict, ConsulDenied, ConsulError, ConsulUnreachable, Locked, RolloutFailed
from outrider.fleet.spec import Agent, Host
from outrider.migration.changes import Documents, changes, goals
from outrider.migration.compile import Definition
from outrider.migration.driver import PATIENCE_S, Driver
from outrider.migration.report import Report
from outrider.migration.store import Seen

HOSTS = (Host("one"),)
START_S = 3.0


def an_agent(**keys: Any) -> Agent:
    return msgspec.convert({"command": ["run"], **keys}, Agent)


class Simulation:
    """A Store whose hosts do at once what documents say, and whose instances are well some seconds later."""

    def __init__(self) -> None:
        self.now = 0.0
        self.docs: dict[str, Documents] = {}
        self.started: dict[str, tuple[str, float]] = {}
        self.order: list[str] = []
        self.errors: list[ConsulError] = []
        self.start_s: dict[str, float] = {}
        self.slots = 1000

    def read(self) -> dict[str, Documents]:
        return self.docs

    def write(self, wanted: Mapping[str, Documents]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.docs = {name: docs for name, docs in (self.docs | wanted).items() if docs != Documents()}
        running = {p.instance: p.version for docs in self.docs.values() for p in docs.instances if p.state == "run"}
        for instance, version in running.items():
            if self.started.get(instance, ("", 0))[0] != version:
                self.order.append(instance)
                self.started[instance] = (version, self._turn())
        self.started = {name: started for name, started in self.started.items() if name in running}

    def _turn(self) -> float:
        """When a process that is started now has its slot: only some start at a time."""
        starting = sorted(at for _, at in self.started.values() if at + START_S > self.now)
        return self.now if len(starting) < self.slots else starting[-self.slots] + START_S

    def observe(self, hosts: set[str]) -> dict[tuple[str, str], Seen]:
        assert hosts <= {"one"}
        return {
            (name, "one"): Seen("one", version, *(("passing", "ok") if self._well(name, at) else ("critical", "no")))
            for name, (version, at) in self.started.items()
        }

    def _well(self, instance: str, at: float) -> bool:
        return self.now >= at + self.start_s.get(instance, START_S)

    def output(self, instance: str, host: str) -> str:
        return ""

    def wait(self, longest_s: float) -> None:
        self.now += longest_s

    def roll_out(self, *, parallel: int = 8, wait_s: float = 10.0, **agents: Agent) -> Report:
        wanted = goals(Definition("test", agents, HOSTS), {}, self.docs, HOSTS, prune=True)
        driver = Driver(self, wait_s=wait_s, clock=lambda: self.now)
        return driver.run(changes(self.docs, wanted), wanted, parallel)


@pytest.fixture
def fleet() -> Simulation:
    return Simulation()


def six(**keys: Any) -> dict[str, Agent]:
    return {f"a{n}": an_agent(**keys) for n in range(6)}


def test_new_agents_start_together(fleet: Simulation) -> None:
    fleet.roll_out(**six())
    assert fleet.now < START_S + 2


def test_at_most_as_many_change_at_once_as_asked(fleet: Simulation) -> None:
    fleet.roll_out(**six())
    before = fleet.now
    report = fleet.roll_out(parallel=2, **six(args=["x"]))
    assert fleet.now - before >= 3 * START_S
    assert sorted(report.restarted) == [f"a{n}-1" for n in range(6)]


def test_who_waits_for_a_start_slot_is_not_late(fleet: Simulation) -> None:
    fleet.slots = 1
    fleet.roll_out(wait_s=4.5, **six())
    assert fleet.now > 6 * START_S


def test_the_first_failure_ends_the_rollout(fleet: Simulation) -> None:
    fleet.roll_out(**six())
    fleet.order.clear()
    fleet.start_s["a0-1"] = 1e9
    with pytest.raises(RolloutFailed) as failure:
        fleet.roll_out(parallel=1, **six(args=["x"]))
    assert fleet.order == ["a0-1", "a0-1"]  # started, and then put back
    assert failure.value.not_done == [f"a{n}" for n in range(1, 6)]
    assert failure.value.done == []
    assert failure.value.hint == "see `outrider logs a0-1` on one; mend it and run again"


def test_what_is_under_way_is_finished_before_a_failure_is_told(fleet: Simulation) -> None:
    fleet.roll_out(**six())
    fleet.start_s |= {"a0-1": 1e9, "a1-1": 9.0}
    with pytest.raises(RolloutFailed) as failure:
        fleet.roll_out(parallel=2, wait_s=5.0, **six(args=["x"]))
    assert "a1" not in failure.value.not_done or "a1: " in failure.value.message


def test_who_failed_stays_failed_if_the_answer_to_putting_it_back_is_lost(fleet: Simulation) -> None:
    fleet.roll_out(**six())
    fleet.order.clear()
    fleet.start_s["a0-1"] = 1e9
    put, lost = fleet.write, []

    def lose(wanted: Mapping[str, Documents]) -> None:
        put(wanted)
        if fleet.now > 10 + START_S and not lost:
            lost.append(1)
            raise ConsulUnreachable("timed out")

    fleet.write = lose  # type: ignore[method-assign]
    with pytest.raises(RolloutFailed):
        fleet.roll_out(parallel=1, **six(args=["x"]))
    assert lost
    assert fleet.order == ["a0-1", "a0-1"]


def test_nothing_is_removed_after_a_failure(fleet: Simulation) -> None:
    fleet.roll_out(**six())
    fleet.start_s["new-1"] = 1e9
    with pytest.raises(RolloutFailed, match="new was removed again"):
        fleet.roll_out(new=an_agent())
    assert sorted(fleet.docs) == sorted(six())


def test_a_lost_check_and_set_is_decided_anew(fleet: Simulation) -> None:
    fleet.errors = [ConsulConflict("changed meanwhile", status=409)] * 3
    assert fleet.roll_out(**six()).operations


def test_a_check_and_set_that_is_always_lost_is_told(fleet: Simulation) -> None:
    fleet.errors = [ConsulConflict("changed meanwhile", status=409)] * 100
    with pytest.raises(ConsulConflict):
        fleet.roll_out(**six())


def test_an_election_is_waited_for(fleet: Simulation) -> None:
    fleet.errors = [ConsulError("No cluster leader", status=500)] * 10
    assert fleet.roll_out(**six()).operations


def test_a_consul_that_stays_away_is_told(fleet: Simulation) -> None:
    fleet.errors = [ConsulUnreachable("nobody answers")] * 1000
    with pytest.raises(ConsulUnreachable):
        fleet.roll_out(**six())
    assert PATIENCE_S <= fleet.now < 2 * PATIENCE_S


@pytest.mark.parametrize("error", [ConsulDenied("no", status=403), Locked("the lock was lost")])
def test_what_no_wait_can_mend_is_told_at_once(fleet: Simulation, error: ConsulError) -> None:
    fleet.errors = [error]
    with pytest.raises(type(error)):
        fleet.roll_out(**six())
    assert fleet.now == 0
