"""What is asked of an agent when its state moves, and what it answers. All carry the key of the placement."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from outrider.calls.state_folder import Item

CHECKPOINT = "outrider.checkpoint"
MANIFEST = "outrider.manifest"
READ = "outrider.read"
UNCHANGED = "outrider.unchanged"
PULL = "outrider.pull"


def key_file(runtime: Path, instance: str) -> Path:
    """Where the shim leaves the key for an instance, and for nobody else."""
    return runtime / "moves" / instance


class Order(Struct, frozen=True):
    """What every one of them says."""

    key: str


class Checkpoint(Order, frozen=True):
    """Answered with the digest. `final`: nothing is under way, and what is only in memory is written first."""

    final: bool = False


class AskManifest(Order, frozen=True):
    """Answered with the items. `final`: those that the final checkpoint found."""

    final: bool = False


class Read(Order, frozen=True):
    """Answered with the bytes of one chunk."""

    path: str
    chunk: int


class Unchanged(Order, frozen=True):
    """Answered with whether the state is still the one of the final checkpoint."""

    digest: str


class Source(Struct, frozen=True):
    """The instance to pull from."""

    agent: str
    instance: str
    host: str
    address: str
    ports: dict[str, int]


class Pull(Order, frozen=True):
    """Answered with Pulled. `final`: the copy becomes the state of who pulls."""

    source: Source
    final: bool = False


class Manifested(Struct, frozen=True):
    """The items, sorted by path."""

    items: tuple[Item, ...]


class Pulled(Struct, frozen=True):
    """What came. `bytes` were fetched of `total_bytes`; `digest` is that of the copy."""

    bytes: int
    total_bytes: int
    files: int
    digest: str
    seconds: float
