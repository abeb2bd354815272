"""The keys by which agents tell who may move their state: each in a file that nobody but its agent reads."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from outrider.calls.state_orders import key_file
from outrider.errors import HostError
from outrider.host.access import READ, grant, passable_folder
from outrider.host.state import Local
from outrider.registry.layout import PlacementDoc

log = logging.getLogger("outrider.shim")


class MoveKeys:
    """Of one host."""

    def __init__(self, runtime_dir: Path) -> None:
        self._runtime = runtime_dir
        self._written: dict[str, tuple[str, int]] = {}  # instance to key and process

    def follow(self, local: Local, placements: Mapping[str, PlacementDoc]) -> None:
        """Leave its process the key that its agent's placement has now, or none."""
        placement = placements.get(local.doc.name)
        key = placement.state_key if placement else ""
        if not key:
            self.forget(local.instance)
        elif local.pid is not None and self._written.get(local.instance) != (key, local.pid):
            try:
                _write(key_file(self._runtime, local.instance), key, _user_of(local.pid))
            except (OSError, HostError) as error:
                log.warning("%s cannot be given the key for its state: %s", local.instance, error)
            else:
                self._written[local.instance] = key, local.pid

    def forget(self, instance: str) -> None:
        """It has no key any more, also none that an earlier shim left."""
        self._written.pop(instance, None)
        key_file(self._runtime, instance).unlink(missing_ok=True)


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
