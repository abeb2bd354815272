"""What the catalogue holds and what a lookup answers."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Status = Literal["passing", "warning", "critical"]
Role = Literal["replica", "holder", "standby"]


class Instance(Struct, frozen=True, array_like=True):
    """One instance that may be called. `since` is Unix seconds; `ports` by name; `status` is critical only in panic.

    `ill`: callers of this host get no answers out of it, whatever its probes say; others are called first.
    """

    agent: str
    instance: str
    host: str
    address: str
    port: int
    ports: dict[str, int]
    status: Status = "passing"
    role: Role = "replica"
    epoch: int = 0
    version: str = ""
    weight: float = 1.0
    since: float = 0.0
    ill: bool = False


class Entry(Struct, frozen=True, array_like=True):
    """One agent in the catalogue: its routing set, best evidence first. `held`: callers wait, nobody is refused.

    `lost`: hosts with instances of it that are lost now. What was asked of those will not be answered.
    """

    agent: str
    instances: tuple[Instance, ...] = ()
    held: bool = False
    lost: tuple[str, ...] = ()


class Answer(Struct, frozen=True):
    """What a lookup returns. `age_s`: seconds since the source last confirmed it; `source`: catalogue or consul.

    `lost`: hosts with instances of the agent that are lost now, as far as this host's shim can tell.
    """

    agent: str
    instances: tuple[Instance, ...]
    age_s: float
    source: Literal["catalogue", "consul"]
    held: bool = False
    generation: int = 0
    lost: tuple[str, ...] = ()
