"""Where things stand in Consul KV, and the documents found there."""

from __future__ import annotations

import hashlib
from typing import Literal

from msgspec import Struct, field

from outrider.fleet.spec import Agent, Host

FLEET = "outrider/fleet/"
PLACEMENT = "outrider/placement/"
PUBLISHED = "outrider/placement/.published"  # no agent is named so
HOSTS = "outrider/hosts/"
MIGRATIONS = "outrider/migrations/"
MOVES = "outrider/moves/"
BACKUPS = "outrider/backups/"
RUN_LOCK = "outrider/locks/fleet"
PLACER_LOCK = "outrider/locks/placer"
VRAM = "vram_mib"  # of a service's meta: GPU memory that its process uses, while it is being moved
TAG = "outrider"
SHIM = "outrider-shim"  # the service, and the check of the host, that each shim registers


class AgentDoc(Struct, frozen=True, omit_defaults=True):
    """`outrider/fleet/<agent>`: what should run. `version` identifies code and configuration together.

    `previous`: what a migration goes away from, and back to; instances are placed at one of both versions.
    """

    name: str
    fleet: str
    agent: Agent
    version: str
    release: str = ""
    previous: AgentDoc | None = None

    def at(self, version: str) -> AgentDoc | None:
        """The document of that version, if it is this one or the one before."""
        if version == self.version:
            return self
        return self.previous if self.previous and self.previous.version == version else None


class Placed(Struct, frozen=True, omit_defaults=True):
    """One instance of a placement. `entry`: the key of `hosts` that it fills; `generation`: restarts asked for.

    `home`: the host that it was moved away from, empty while it is there. While it moves without a gap, its name stands
    twice: first where it leaves, last where it goes.
    `weight`: the calls it gets in proportion to the others; none at 0. `reserve`: of a singleton with state, it takes
    the lease from who handed it over with the state, and at no other time.
    """

    instance: str
    host: str
    version: str
    entry: str = ""
    state: Literal["run", "stopped"] = "run"
    generation: int = 0
    home: str = ""
    weight: float = 1.0
    reserve: bool = False


class Handover(Struct, frozen=True):
    """A singleton's lease is to pass to this instance on this host, once: from the holder of that epoch, no other."""

    instance: str
    host: str
    epoch: int


class PlacementDoc(Struct, frozen=True, omit_defaults=True):
    """`outrider/placement/<agent>`: where it should run, and why. `since`: Unix seconds of that, 0 if not known.

    migration: the id of the one that is moving it; nobody else places it meanwhile
    held: why its callers are to wait, empty if they need not
    state_key_hash: of the key in MOVES that its instances ask of each other before they give their state away; with it,
        a lease that is handed over takes the state along
    """

    agent: str
    instances: tuple[Placed, ...] = field(default_factory=tuple)
    reason: str = ""
    since: float = 0.0
    handover: Handover | None = None
    migration: str = ""
    held: str = ""
    state_key_hash: str = ""


class MoveDoc(Struct, frozen=True):
    """`outrider/moves/<host>/<agent>`: the key to an agent's state, while it moves from or to that host.

    hosts: between which it moves; to no other the key is told, whatever a placement says
    """

    key: str
    hosts: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """What everybody may know of it: it is random, and too long to be guessed."""
        return hashlib.sha256(self.key.encode()).hexdigest()


class HostDoc(Struct, frozen=True, omit_defaults=True):
    """`outrider/hosts/<host>`: what the inventory says of it, and whether operators want it empty.

    `reason` and `since` (Unix seconds) are those of the state.
    """

    host: Host
    state: Literal["active", "drained"] = "active"
    reason: str = ""
    since: float = 0.0

    @property
    def closed(self) -> str:
        """Why nothing new may be put there; empty if it may."""
        if self.state == "active":
            return ""
        return f"is drained: {self.reason}" if self.reason else "is drained"


def move_key(host: str, agent: str) -> str:
    """Where a host, and no other that is not a server, reads the MoveDoc of an agent."""
    return f"{MOVES}{host}/{agent}"


def service_name(agent: str) -> str:
    """Consul service name of an agent: a valid DNS label, so `_` becomes `-`."""
    return agent.replace("_", "-")
