"""Start, stop and restart: changes of the placement document, which every shim concerned then acts on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, get_args

from msgspec.structs import replace

from outrider.errors import ConsulConflict, OutriderError, UnknownAgent
from outrider.host.reports import ActionReport
from outrider.registry import kv
from outrider.registry.layout import PLACEMENT, Placed, PlacementDoc

if TYPE_CHECKING:
    from outrider.daemon.shim import Shim

Action = Literal["start", "stop", "restart"]
TRIES = 5


def restartable(text: str) -> Action:
    """`text` as an action. Raises OutriderError with what is allowed."""
    for action in get_args(Action):
        if text == action:
            found: Action = action
            return found
    raise OutriderError(f"unknown action {text}", hint=f"allowed: {', '.join(get_args(Action))}")


def changed(placed: Placed, action: Action) -> Placed:
    """An instance's place after the action."""
    if action == "stop":
        return replace(placed, state="stopped")
    if action == "restart":
        return replace(placed, state="run", generation=placed.generation + 1)
    return replace(placed, state="run")


async def act(shim: Shim, name: str, action: Action) -> ActionReport:
    """Act on an agent or on one instance, by check-and-set. Raises UnknownAgent or ConsulError."""
    agent, instances = _find(shim, name)
    loop = asyncio.get_running_loop()
    for attempt in range(TRIES):
        try:
            generations = await loop.run_in_executor(None, _write, shim, agent, instances, action)
            break
        except ConsulConflict:
            if attempt == TRIES - 1:
                raise
    return ActionReport(action, tuple(generations), generations)


def _find(shim: Shim, name: str) -> tuple[str, list[str]]:
    for agent, placement in shim.feed.view.placements.items():
        instances = [placed.instance for placed in placement.instances]
        if agent == name:
            return agent, instances
        if name in instances:
            return agent, [name]
    raise UnknownAgent(f"no agent or instance {name} in the fleet", hint="`outrider agents` lists them")


def _write(shim: Shim, agent: str, instances: list[str], action: Action) -> dict[str, int]:
    key = PLACEMENT + agent
    doc, index = kv.get_doc(shim.consul, key, PlacementDoc)
    if doc is None:
        raise UnknownAgent(f"agent {agent} was removed meanwhile")
    if doc.migration:
        hint = f"`outrider migrate watch {doc.migration}` waits for it, `migrate rollback {doc.migration}` ends it"
        raise OutriderError(f"{agent} is being moved by migration {doc.migration}", hint=hint)
    placed = tuple(changed(item, action) if item.instance in instances else item for item in doc.instances)
    kv.put_docs(shim.consul, [kv.Change(key, replace(doc, instances=placed), index)])
    return {item.instance: item.generation for item in placed if item.instance in instances}
