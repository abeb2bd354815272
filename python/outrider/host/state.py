"""What a shim knows of the instances on its own host, and the copy on disk that survives the shim and Consul."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import msgspec

from outrider.discovery.records import Role
from outrider.host.reports import InstanceStatus
from outrider.registry.layout import AgentDoc, Placed


class Kept(msgspec.Struct, frozen=True):
    """What an instance was last started with: enough to keep it running while Consul is away.

    parked: why this version and generation is not started any more; empty if it is
    """

    doc: AgentDoc
    placed: Placed
    ports: dict[str, int]
    parked: str = ""


class Local(msgspec.Struct):
    """One instance on this host as its runner sees it now. `epoch`: of the lease that it holds, else 0.

    vram_mib: GPU memory that it uses, while it is being moved and that can be measured
    generation: that of the placement which what serves, or last served, was started for
    """

    doc: AgentDoc
    placed: Placed
    role: Role
    status: InstanceStatus = "missing"
    detail: str = ""
    ports: dict[str, int] = msgspec.field(default_factory=dict)
    pid: int | None = None
    restarts: int = 0
    since: float = msgspec.field(default_factory=time.time)
    epoch: int = 0
    vram_mib: int | None = None
    generation: int = 0

    @property
    def instance(self) -> str:
        """Its name, which is also its Consul service ID."""
        return self.placed.instance

    @property
    def main_port(self) -> int:
        """The port that callers use, 0 while none is chosen."""
        return self.ports.get("main", 0) or next(iter(self.ports.values()), 0)


class KeptStore:
    """`<state_dir>/instances/<instance>.json`, one Kept each; readable by the shim's user alone."""

    def __init__(self, state_dir: Path) -> None:
        self._dir = state_dir / "instances"
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)

    def save(self, kept: Kept) -> None:
        """Write it whole or not at all."""
        path = self._dir / f"{kept.placed.instance}.json"
        scratch = path.with_suffix(".tmp")
        with open(scratch, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(msgspec.json.encode(kept))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)

    def load(self) -> dict[str, Kept]:
        """All readable copies by instance; one that is damaged is treated as absent."""
        kept = {}
        for path in sorted(self._dir.glob("*.json")):
            with contextlib.suppress(msgspec.MsgspecError, OSError):
                kept[path.stem] = msgspec.json.decode(path.read_bytes(), type=Kept)
        return kept

    def forget(self, instance: str) -> None:
        """Remove the copy; it is no error if there is none."""
        (self._dir / f"{instance}.json").unlink(missing_ok=True)
