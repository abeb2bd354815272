"""What the driver of a migration sees of GPU memory: what the target's shim told with its registration, if it did."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from outrider.daemon.migration_copy import CopyAhead
from outrider.daemon.migration_drive import Drive
from outrider.daemon.migration_eyes import Eyes
from outrider.daemon.migration_lookout import Lookout
from outrider.daemon.migration_truth import Truth
from outrider.fleet.spec import Agent, Resources
from outrider.migration.staged.records import End, Journal, Spec, next_entry
from outrider.migration.staged.sight import Counts
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


def test_how_soon_the_old_one_answers_is_its_machines_yardstick_once_the_new_one_is_judged() -> None:
    """Only while it is well; and what was put aside is gone when the next step begins."""

    async def whole() -> Any:
        journal = Journal(SPEC)
        owner: Any = SimpleNamespace(
            journals={"m": journal}, began={}, config=SimpleNamespace(host="h1"), view=lambda: both, leases=dict,
            placer=SimpleNamespace(picture=lambda: SimpleNamespace(lost={}, trouble={})),
        )  # fmt: skip
        both = view()
        both.members["h1"] = (Service("A-1", "A", "127.0.0.1", 7001, ("outrider",), {"agent": "A"}, "c", "passing"),)
        times = iter(float(n) for n in range(1000))
        drive = Drive(owner, "m", lambda: next(times))

        async def ask(spots: Any) -> None:
            drive._lookout.eyes.took = {"A-1": took}
            drive._lookout.eyes.counts["A-2"] = Counts(
                drive._lookout.eyes.counts.get("A-2", Counts()).calls + 10, 0, ()
            )

        drive._lookout.eyes.ask = ask  # type: ignore[method-assign]
        found = []

        async def look(count: int) -> None:
            for _ in range(count):
                await drive._lookout.count(SPEC)
                seen = drive._lookout.sight(drive._known(), both.agents["A"], drive._copy, "")
            found.append(seen.aside.calls)

        def begin(step: str) -> None:
            owner.journals["m"] = owner.journals["m"].followed_by(
                next_entry(owner.journals["m"], "begun", 1.0, "h1", step=step)
            )
            drive._decide(drive._known())

        took = 0.001
        begin("start")
        await look(6)
        begin("hand over")
        await look(2)
        begin("verify")
        await look(3)
        took = 0.5
        await look(2)
        both.critical = (SimpleNamespace(node="h1", service_id="A-1", output="dead", check_id="c"),)
        await look(3)
        begin("verify")
        await look(1)
        return found

    assert asyncio.run(whole()) == [0, 0, 0, 20, 30, 0]
