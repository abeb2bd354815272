"""What is said of a process that ends: by itself, stopped, hanging, or without its lease."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from outrider.fleet.spec import Agent
from outrider.host.health import Health
from outrider.host.state import Local
from outrider.host.supervisor import Exit, Process
from outrider.host.watched_process import WatchedProcess
from outrider.registry.layout import AgentDoc, Placed

KILLED = Exit(signal=9, reason="killed by SIGKILL")
PROCESS = Process("Echo-1", 4711, 1)


class Supervisor:
    """Of one process, which ends when the test says so, and at once when it is stopped or killed."""

    def __init__(self) -> None:
        self.killed = 0

    def watch_exit(self, process: Process, died: Any, ended: Any) -> None:
        self.die = lambda how=KILLED: (died(process), ended(process, how))

    async def stop(self, process: Process, timeout_s: float) -> None:
        del process, timeout_s
        self.die(Exit(code=0, reason="exit status 0"))

    async def kill(self, process: Process) -> None:
        del process
        self.killed += 1
        self.die()


class World:
    """An instance whose process runs and is well."""

    def __init__(self, lease: Path, agent: Agent) -> None:
        self.holds = True
        self.told: list[tuple[str, str]] = []
        self.supervisor: Any = Supervisor()
        self.local = Local(AgentDoc("Echo", "f", agent, "v1"), Placed("Echo-1", "pc1", "v1"), role="replica")
        probes: Any = None
        self.health = Health(self.local, probes, lambda _: "", self._changed)
        self.process = WatchedProcess(self.health, self.supervisor, lease, lambda _: self.holds)
        self.process.watch(PROCESS)
        self.health.mark_well()
        self.told.clear()

    def _changed(self, local: Local) -> None:
        self.told.append((local.status, local.detail))


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return World(tmp_path / "lease", Agent())


@pytest.fixture
async def fenced(tmp_path: Path) -> World:
    (tmp_path / "lease").touch()
    return World(tmp_path / "lease", Agent(mode="singleton", fence="deadman"))


async def test_that_it_died_is_said_before_how(world: World) -> None:
    world.supervisor.die()
    assert world.told == [("critical", "died: how is not known yet"), ("critical", "exited: killed by SIGKILL")]
    assert world.process.ended.result() == KILLED
    assert (world.process.is_there, world.process.pid) == (False, None)


async def test_one_that_is_stopped_was_not_ill(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outrider.host.watched_process.DRAIN_S", 0)
    await world.process.end("stopped by request")
    assert {status for status, _ in world.told} == {"stopped"}
    assert not world.process.is_there


async def test_a_hang_is_the_reason_of_the_death_that_follows(world: World) -> None:
    await world.process.kill("no answer")
    assert world.process.ended.result().reason == "hung and was killed (no answer)"
    await world.process.kill("no answer")
    assert world.supervisor.killed == 1


async def test_the_death_of_an_earlier_one_says_nothing_of_the_next(world: World) -> None:
    die = world.supervisor.die
    world.process.watch(Process("Echo-1", 4712, 2))
    die()
    assert world.told == []
    assert world.process.pid == 4712


async def test_one_that_lost_its_lease_is_fenced_off_and_says_so(fenced: World) -> None:
    fenced.holds = False
    fenced.process.fence_off("its lease is over")
    fenced.process.fence_off("its lease is over")
    assert (await fenced.process.ended).reason == "its lease was over: killed by SIGKILL"
    assert fenced.process.lease_over
    assert fenced.supervisor.killed == 1


async def test_one_without_its_dead_man_is_fenced_off(fenced: World) -> None:
    fenced.process.check_guard()
    assert await fenced.process.ended == KILLED
    assert not fenced.process.lease_over


async def test_one_without_a_fence_needs_no_dead_man(world: World) -> None:
    world.process.check_guard()
    await asyncio.sleep(0)
    assert world.process.is_there


async def test_it_is_grown_up_when_it_was_ready_or_had_its_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outrider.host.watched_process.age_s", lambda started: age)
    limit = world.local.doc.agent.start_timeout_s
    age = limit - 1
    assert not world.process.grown_up
    age = limit + 1
    assert world.process.grown_up
    age = 0.0
    world.health.ready.set()
    assert world.process.grown_up
