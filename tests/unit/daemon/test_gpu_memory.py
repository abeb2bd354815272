"""An instance that is being moved is measured, and its registration says what it uses."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from outrider.daemon.gpu_memory import GpuMemory
from outrider.daemon.shim import service_of
from outrider.fleet.spec import Agent, Resources
from outrider.host.state import Local
from outrider.host.vram import MIB
from outrider.registry.layout import AgentDoc, Placed, PlacementDoc

PLACED = Placed("A-1", "here", "v1")


class Gpu:
    """A host whose driver says that this process uses `mib`."""

    def __init__(self) -> None:
        self.there = True
        self.mib: int | None = 100
        self.answers = threading.Event()
        self.answers.set()
        self.asked = 0

    def by_process(self) -> dict[int, int | None] | None:
        self.asked += 1
        assert self.answers.wait(60)
        return None if self.mib is None else {os.getpid(): self.mib * MIB}


class Scene:
    """One instance that declares 100 MiB, and is being moved or not."""

    def __init__(self, vram_mib: int | None = 100) -> None:
        agent = Agent(resources=Resources(vram_mib=vram_mib))
        self.local = Local(AgentDoc("A", "f", agent, "v1"), PLACED, "replica", pid=os.getpid())
        self.placement = PlacementDoc("A", (PLACED,), migration="m")
        self.gpu: Any = Gpu()
        self.told: list[int | None] = []
        self.memory = GpuMemory(
            ThreadPoolExecutor(1),
            {"A-1": self.local},
            self.view,
            lambda local: self.told.append(local.vram_mib),
            self.gpu,
        )

    def view(self) -> Any:
        return SimpleNamespace(placements={"A": self.placement})

    async def look(self) -> None:
        await self.memory.look()
        await self.memory.measured()


def test_what_is_moved_is_measured_told_when_it_changes_and_then_forgotten() -> None:
    async def whole() -> None:
        scene = Scene()
        for mib in (100, 104, 120, None):
            scene.gpu.mib = mib
            await scene.look()
        scene.gpu.mib = 90
        await scene.look()
        assert service_of(scene.local, "here", "127.0.0.1").meta["vram_mib"] == "90"
        scene.placement = replace(scene.placement, migration="")
        await scene.look()
        assert scene.told == [100, 120, None, 90, None]
        assert "vram_mib" not in service_of(scene.local, "here", "127.0.0.1").meta

    asyncio.run(whole())


def test_nothing_is_asked_where_nothing_is_declared_nothing_moves_or_there_is_no_gpu() -> None:
    async def whole() -> None:
        undeclared, still, without = Scene(vram_mib=None), Scene(), Scene()
        still.placement = replace(still.placement, migration="")
        without.gpu.there = False
        for scene in (undeclared, still, without):
            await scene.look()
            assert (scene.gpu.asked, scene.told) == (0, [])

    asyncio.run(whole())


def test_a_gpu_that_hangs_holds_up_nobody_and_is_asked_once() -> None:
    async def whole() -> None:
        scene = Scene()
        scene.gpu.answers.clear()
        await scene.memory.look()
        await scene.memory.look()
        await asyncio.sleep(0)
        scene.gpu.answers.set()
        await scene.memory.measured()
        assert (scene.gpu.asked, scene.told) == (1, [100])

    asyncio.run(whole())
