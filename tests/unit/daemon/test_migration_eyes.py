"""What the driver of a migration sees of GPU memory: what the target's shim told with its registration, if it did."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from outrider.daemon.migration_copy import CopyAhead
from outrider.daemon.migration_eyes import Eyes
from outrider.daemon.migration_lookout import Lookout
from outrider.daemon.migration_truth import Truth
from outrider.fleet.spec import Agent, Resources
from outrider.migration.staged.records import End, Journal, Spec
from outrider.registry.layout import AgentDoc, PlacementDoc
from outrider.registry.services import Service

SPEC = Spec("m", "A", "singleton", End("A-1", "h1", "v1"), End("A-2", "h2", "v1"))


def view(**meta: str) -> Any:
    agent = AgentDoc("A", "f", Agent(resources=Resources(vram_mib=100)), "v1")
    service = Service("A-2", "A", "127.0.0.1", 7000, ("outrider",), {"agent": "A", **meta}, "outrider:A-2", "passing")
    return SimpleNamespace(
        agents={"A": agent},
        placements={"A": PlacementDoc("A")},
        members={"h2": (service,)},
        hosts={},
        nodes=frozenset({"h1", "h2"}),
        critical=(),
    )


@pytest.mark.parametrize(("meta", "mib"), [({"vram_mib": "512"}, 512), ({}, None), ({"vram_mib": "much"}, None)])
def test_it_is_known_where_the_shim_told_it(meta: dict[str, str], mib: int | None) -> None:
    config: Any = SimpleNamespace()
    eyes = Eyes(lambda: view(**meta), config)
    assert (eyes.vram_mib("A-2", "h2"), eyes.vram_mib("A-1", "h1")) == (mib, None)


def test_each_look_of_the_driver_is_one_sample_of_it_in_its_step() -> None:
    async def whole() -> Any:
        picture = SimpleNamespace(lost={}, trouble={})
        owner: Any = SimpleNamespace(
            journals={"m": Journal(SPEC)},
            began={"m": (None, 0.0)},
            config=SimpleNamespace(host="h1"),
            view=lambda: view(vram_mib="120"),
            leases=dict,
            placer=SimpleNamespace(picture=lambda: picture),
        )
        times = iter(float(n) for n in range(100))
        lookout = Lookout(owner, "m", lambda: next(times))
        for _ in range(3):
            await lookout.count(SPEC)
        agent = view().agents["A"]
        truth = Truth(owner.journals["m"], PlacementDoc("A"), 0, agent, None)
        before = lookout.sight(truth, agent, CopyAhead(owner, lookout.eyes), "")
        lookout.step_begun()
        return before.vram, lookout.sight(truth, agent, CopyAhead(owner, lookout.eyes), "").vram

    assert asyncio.run(whole()) == ((3, 3), (0, 0))
