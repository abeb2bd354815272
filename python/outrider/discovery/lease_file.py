"""A singleton's lease as its process sees it: two words of memory that the shim writes, read without a system call.

`<runtime>/leases/<instance>`, 64 bytes in the host's byte order: magic, format version, then the aligned 64-bit words
epoch, deadline (monotonic ns, 0: no lease), hash of the boot, and 1 while nothing new is accepted. Past its deadline a
lease is over, whatever becomes of the shim, and of Consul.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

from outrider.discovery.format import boot_hash
from outrider.errors import HostError

SIZE = 64
MAGIC = b"ORLEASE\0"
FORMAT = 1
FOREVER_NS = 2**63 - 1  # of a lease that nobody else may take
_HEAD = struct.Struct("=8sII QQQQ")
_EPOCH, _DEADLINE, _BOOT, _CLOSED = 2, 3, 4, 5
VARIABLE = "OUTRIDER_LEASE"


def lease_path(runtime_dir: Path, instance: str) -> Path:
    """Where the lease of an instance is."""
    return runtime_dir / "leases" / instance


class LeaseWriter:
    """The shim's side. The file stays when the shim ends: what it promised holds until then."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        if not _sound(path):
            scratch = path.with_name(f".{path.name}.new")
            scratch.write_bytes(_HEAD.pack(MAGIC, FORMAT, 0, 0, 0, boot_hash(), 0).ljust(SIZE, b"\0"))
            scratch.chmod(0o644)
            scratch.replace(path)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)
        self._words = memoryview(self._map).cast("Q")
        if self._words[_BOOT] != boot_hash():
            self._words[_DEADLINE] = 0
            self._words[_BOOT] = boot_hash()

    @property
    def epoch(self) -> int:
        """Of the last lease."""
        return int(self._words[_EPOCH])

    @property
    def deadline_ns(self) -> int:
        """Until when the last lease holds, or held; 0 for none."""
        return int(self._words[_DEADLINE])

    @property
    def is_granted(self) -> bool:
        """Whether the last lease has not run out, nor been ended."""
        return time.monotonic_ns() < self._words[_DEADLINE]

    def grant(self, epoch: int, deadline_ns: int) -> None:
        """From now until the deadline the instance holds the lease of that epoch."""
        if epoch != self._words[_EPOCH]:
            # In this order no reader finds the new epoch with an old deadline.
            self._words[_DEADLINE] = 0
            self._words[_EPOCH] = epoch
            self._words[_CLOSED] = 0
        self._words[_DEADLINE] = deadline_ns

    def close_to_new(self) -> None:
        """What is under way may be finished; nothing new is accepted under this epoch."""
        self._words[_CLOSED] = 1

    def reopen(self) -> None:
        """It was closed to no end: new work is accepted again."""
        self._words[_CLOSED] = 0

    def end(self) -> None:
        """The instance holds no lease from now on."""
        self._words[_DEADLINE] = 0

    def close(self) -> None:
        """Let go of the file."""
        self._words.release()
        self._map.close()


class LeaseReader:
    """The instance's side. Raises HostError if there is no lease file."""

    def __init__(self, path: Path) -> None:
        if not _sound(path):
            raise HostError(f"{path} is no lease", hint="the shim makes it before it starts an instance")
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_READ)
        self._words = memoryview(self._map).cast("Q")

    def epoch(self) -> int:
        """The epoch of the lease that is held at this moment; 0 if none is."""
        epoch = self._words[_EPOCH]
        return epoch if time.monotonic_ns() < self._words[_DEADLINE] and epoch == self._words[_EPOCH] else 0

    def accepts(self) -> int:
        """The same for new work: 0 also while the instance is being closed."""
        return 0 if self._words[_CLOSED] else self.epoch()

    @property
    def last_epoch(self) -> int:
        """The epoch of the last lease, held or not."""
        return self._words[_EPOCH]

    @property
    def deadline_ns(self) -> int:
        """Until when the lease holds, on the monotonic clock; 0 for none."""
        return self._words[_DEADLINE]


def of_environment() -> LeaseReader | None:
    """The lease of this process; None if it is no instance of a singleton."""
    path = os.environ.get(VARIABLE)
    return LeaseReader(Path(path)) if path else None


def _sound(path: Path) -> bool:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    return len(data) == SIZE and _HEAD.unpack_from(data)[:2] == (MAGIC, FORMAT)
