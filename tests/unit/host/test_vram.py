"""GPU memory by process, as a driver that is not there would tell it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from outrider.host.vram import MIB, Vram, used_mib


class NvmlError(Exception):
    """As the library has it."""


class Driver:
    """Two GPUs, and what computes or draws on each. `fails`: it is asked for the GPUs in vain."""

    def __init__(self) -> None:
        self.computes: list[dict[int, int | None]] = [{}, {}]
        self.draws: list[dict[int, int | None]] = [{}, {}]
        self.fails = False
        self.opened: list[int] = []

    def library(self) -> Any:
        return SimpleNamespace(
            NVMLError=NvmlError,
            nvmlInit=lambda: self.opened.append(1),
            nvmlShutdown=lambda: self.opened.append(-1),
            nvmlDeviceGetCount=self._count,
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetComputeRunningProcesses=lambda gpu: _listed(self.computes[gpu]),
            nvmlDeviceGetGraphicsRunningProcesses=lambda gpu: _listed(self.draws[gpu]),
        )

    def _count(self) -> int:
        if self.fails:
            raise NvmlError
        return 2


def _listed(processes: dict[int, int | None]) -> list[Any]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in processes.items()]


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def test_a_process_is_counted_on_all_gpus_and_once_on_each(tmp_path: Path) -> None:
    driver = Driver()
    driver.computes, driver.draws = [{7: 5 * MIB, 8: None}, {7: 2 * MIB, 8: MIB}], [{7: 5 * MIB}, {}]
    assert Vram(tmp_path, driver.library).by_process() == {7: 7 * MIB, 8: None}
    assert driver.opened == [1, -1]


def test_without_a_driver_nothing_is_loaded_and_one_that_fails_tells_nothing(tmp_path: Path) -> None:
    def missing() -> Any:
        raise ImportError("pynvml")

    def never() -> Any:
        raise AssertionError

    driver = Driver()
    assert Vram(tmp_path / "nvidia", never).by_process() is None
    assert Vram(tmp_path, missing).by_process() is None
    driver.fails = True
    assert Vram(tmp_path, driver.library).by_process() is None
    assert driver.opened == [1, -1]


def test_what_a_process_started_is_its_own(child: int) -> None:
    mine = os.getpid()
    assert used_mib(mine, {mine: 3 * MIB, child: 4 * MIB, 1: 99 * MIB}) == 7
    assert used_mib(mine, {}) == 0
    assert used_mib(mine, {mine: 3 * MIB, child: None}) is None
    assert used_mib(2**22 + 1, {}) is None
