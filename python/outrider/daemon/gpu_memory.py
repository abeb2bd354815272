"""GPU memory of this host's instances that are being moved: told with their registration, to whoever judges them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

from outrider.discovery.feed import View
from outrider.host.state import Local
from outrider.host.vram import Vram, used_mib

STEADY = 0.05  # of what is declared: a smaller change is no news, and each is a write to Consul


class GpuMemory:
    """`look` is called once a second. `changed`: an instance's `vram_mib` is another one."""

    def __init__(
        self,
        executor: Executor,
        locals_: Mapping[str, Local],
        view: Callable[[], View],
        changed: Callable[[Local], None],
        vram: Vram | None = None,
    ) -> None:
        self._executor = executor
        self._locals = locals_
        self._view = view
        self._changed = changed
        self._vram = vram or Vram()
        self._reading: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Begin to measure what is being moved, and forget what is not any more. A GPU that hangs holds up nobody."""
        due = []
        for local in list(self._locals.values()):
            if local.pid and self._is_judged(local):
                due.append(local)
            elif local.vram_mib is not None:
                self._tell(local, None)
        if due and self._vram.there and (self._reading is None or self._reading.done()):
            self._reading = asyncio.get_running_loop().create_task(self._read(due), name="gpu memory")

    async def measured(self) -> None:
        """Wait for what was begun."""
        if self._reading:
            await self._reading

    def _is_judged(self, local: Local) -> bool:
        placement = self._view().placements.get(local.doc.name)
        return bool(local.doc.agent.resources.vram_mib and placement and placement.migration)

    async def _read(self, due: Sequence[Local]) -> None:
        pids = {local.instance: local.pid or 0 for local in due}
        found = await asyncio.get_running_loop().run_in_executor(self._executor, self._measure, pids)
        for local in due:
            if local.pid == pids[local.instance]:
                self._tell(local, found.get(local.instance))

    def _measure(self, pids: Mapping[str, int]) -> dict[str, int | None]:
        by_process = self._vram.by_process()
        return {} if by_process is None else {name: used_mib(pid, by_process) for name, pid in pids.items()}

    def _tell(self, local: Local, mib: int | None) -> None:
        before, declared = local.vram_mib, local.doc.agent.resources.vram_mib or 0
        if mib is not None and before is not None and abs(mib - before) <= STEADY * declared:
            return
        if mib != before:
            local.vram_mib = mib
            self._changed(local)
