"""GPU memory that processes use, as the driver tells it (NVML); nothing on a host without a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from outrider.host.environment import NVIDIA

MIB = 2**20


def _pynvml() -> Any:
    return importlib.import_module("pynvml")


class Vram:
    """Asks the driver anew each time. A GPU that hangs holds the caller up: ask from a worker thread.

    nvidia: the driver's folder; without it nothing is loaded. load: the library, as pynvml is
    """

    def __init__(self, nvidia: Path = NVIDIA, load: Callable[[], Any] = _pynvml) -> None:
        self._nvidia = nvidia
        self._load = load

    @property
    def there(self) -> bool:
        """Whether this host has the driver of a GPU."""
        return self._nvidia.is_dir()

    def by_process(self) -> dict[int, int | None] | None:
        """Bytes on all GPUs by pid, None for one that the driver does not tell; None if it cannot be asked at all."""
        if not self.there:
            return None
        try:
            nvml = self._load()
        except ImportError:
            return None
        try:
            nvml.nvmlInit()
            try:
                found: dict[int, int | None] = {}
                for index in range(nvml.nvmlDeviceGetCount()):
                    for pid, used in _on(nvml, nvml.nvmlDeviceGetHandleByIndex(index)).items():
                        before = found.get(pid, 0)
                        found[pid] = None if used is None or before is None else before + used
                return found
            finally:
                nvml.nvmlShutdown()
        except nvml.NVMLError:
            return None


def _on(nvml: Any, handle: Any) -> dict[int, int | None]:
    """Of one GPU. What computes and draws stands in both lists, with the same memory."""
    listed = (*nvml.nvmlDeviceGetComputeRunningProcesses(handle), *nvml.nvmlDeviceGetGraphicsRunningProcesses(handle))
    return {process.pid: process.usedGpuMemory for process in listed}


def used_mib(pid: int, by_process: Mapping[int, int | None]) -> int | None:
    """Of a process and what it started; None if the driver does not tell it, or the process is gone."""
    try:
        process = psutil.Process(pid)
        pids = [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.Error:
        return None
    used = [by_process[each] for each in pids if each in by_process]
    known = [each for each in used if each is not None]
    return sum(known) // MIB if len(known) == len(used) else None
