"""The keys by which agents tell who may move their state: read for this host alone, each left for its agent alone."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path

from outrider.calls.state_orders import key_file
from outrider.errors import ConsulError, HostError
from outrider.host.access import READ, grant, passable_folder
from outrider.host.state import Local
from outrider.registry.client import Consul
from outrider.registry.kv import get_doc
from outrider.registry.layout import MoveDoc, PlacementDoc, move_key

log = logging.getLogger("outrider.shim")

AGAIN_S = 0.25
NO_KEY = MoveDoc("")


class MoveKeys:
    """Of one host. Runs on the event loop; Consul is asked in `executor`, once a placement says that there is a key.

    A watch would wake at every write below `outrider/` while no key is there, which is nearly always.
    placements: as this shim last read them; arrived: called with an agent whose key is known from here on
    """

    def __init__(
        self,
        consul: Consul,
        executor: Executor,
        host: str,
        runtime_dir: Path,
        placements: Callable[[], Mapping[str, PlacementDoc]],
        arrived: Callable[[str], None],
    ) -> None:
        self._consul = consul
        self._executor = executor
        self._host = host
        self._runtime = runtime_dir
        self._placements = placements
        self._arrived = arrived
        self._keys: dict[str, MoveDoc] = {}  # by agent, as last read
        self._learning: dict[str, asyncio.Task[None]] = {}
        self._said: set[str] = set()
        self._written: dict[str, tuple[str, int]] = {}  # instance to key and process

    def stop(self) -> None:
        """Ask no more."""
        for task in self._learning.values():
            task.cancel()

    def key_of(self, placement: PlacementDoc) -> MoveDoc | None:
        """With which key its state moves: NO_KEY if it does not, None while that is not known here yet."""
        if not placement.state_key_hash:
            return NO_KEY
        known = self._keys.get(placement.agent)
        return known if known and known.hash == placement.state_key_hash else None

    def follow(self, local: Local) -> None:
        """Leave its process the key that its agent's placement has now, or none."""
        placement = self._placements().get(local.doc.name)
        move = self.key_of(placement) if placement else NO_KEY
        if move is None:
            self._learn(local.doc.name)
        elif move is NO_KEY:
            self._keys.pop(local.doc.name, None)
            self.forget(local.instance)
        elif local.pid is not None and self._written.get(local.instance) != (move.key, local.pid):
            try:
                _write(key_file(self._runtime, local.instance), move.key, _user_of(local.pid))
            except (OSError, HostError) as error:
                log.warning("%s cannot be given the key for its state: %s", local.instance, error)
            else:
                self._written[local.instance] = move.key, local.pid

    def forget(self, instance: str) -> None:
        """It has no key any more, also none that an earlier shim left."""
        self._written.pop(instance, None)
        key_file(self._runtime, instance).unlink(missing_ok=True)

    def _learn(self, agent: str) -> None:
        task = self._learning.get(agent)
        if task is None or task.done():
            self._learning[agent] = asyncio.get_running_loop().create_task(self._ask(agent), name=f"key of {agent}")

    async def _ask(self, agent: str) -> None:
        """Until the key that the placement asks for is known, or it asks for none."""
        while (placement := self._placements().get(agent)) and self.key_of(placement) is None:
            why = await asyncio.get_running_loop().run_in_executor(self._executor, self._read, agent)
            if self.key_of(placement) is None:
                if agent not in self._said:
                    self._said.add(agent)
                    log.warning("the state of %s waits for its key: %s", agent, why or "Consul has another one")
                await asyncio.sleep(AGAIN_S)
        if placement and self.key_of(placement) is not NO_KEY:
            self._said.discard(agent)
            self._arrived(agent)

    def _read(self, agent: str) -> str:
        """Read it; why not, if that fails."""
        key = move_key(self._host, agent)
        try:
            found, _ = get_doc(self._consul, key, MoveDoc)
        except ConsulError as error:
            return error.message
        if found is None:
            return f"there is no {key}"
        self._keys[agent] = found
        return ""


def _write(path: Path, key: str, user: int) -> None:
    passable_folder(path.parent)
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    with open(scratch, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(key.encode())
    grant(scratch, user, READ)
    scratch.replace(path)


def _user_of(pid: int) -> int:
    """The effective user of a process, which only root decided."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[2])
    raise HostError(f"process {pid} has no user")
