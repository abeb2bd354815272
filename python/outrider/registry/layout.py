"""Where things stand in Consul KV, and the documents found there."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from outrider.fleet.spec import Agent

FLEET = "outrider/fleet/"
PLACEMENT = "outrider/placement/"
RUN_LOCK = "outrider/locks/fleet"
TAG = "outrider"


class AgentDoc(Struct, frozen=True, omit_defaults=True):
    """`outrider/fleet/<agent>`: what should run. `version` identifies code and configuration together."""

    name: str
    fleet: str
    agent: Agent
    version: str
    release: str = ""


class Placed(Struct, frozen=True, omit_defaults=True):
    """One instance of a placement. `entry`: the key of `hosts` that it fills; `generation`: restarts asked for."""

    instance: str
    host: str
    version: str
    entry: str = ""
    state: Literal["run", "stopped"] = "run"
    generation: int = 0


class PlacementDoc(Struct, frozen=True, omit_defaults=True):
    """`outrider/placement/<agent>`: where it should run, and why."""

    agent: str
    instances: tuple[Placed, ...] = field(default_factory=tuple)
    reason: str = ""


def service_name(agent: str) -> str:
    """Consul service name of an agent: a valid DNS label, so `_` becomes `-`."""
    return agent.replace("_", "-")
