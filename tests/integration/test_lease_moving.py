"""While a migration moves a state, the lease is taken as Consul's placement says, whatever an instance's host knows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from integration.conftest import ConsulServer
from outrider.failover.keeper import LeaseKeeper
from outrider.registry import leases
from outrider.registry.kv import Change, get_doc, put_docs
from outrider.registry.layout import PLACEMENT, Placed, PlacementDoc
from outrider.registry.leases import LeaseDoc, Member

MEMBERS = (Member("A-1", "other"), Member("A-2", "local"))
WITHIN_S = 30.0


def place(consul: ConsulServer, *, reserve: bool) -> None:
    placed = (Placed("A-1", "other", "v1", reserve=not reserve), Placed("A-2", "local", "v1", reserve=reserve))
    key = PLACEMENT + "A"
    put_docs(consul.client, [Change(key, PlacementDoc("A", placed, migration="m", state_key_hash="h"), None)])


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while True:
            if what():
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("moving", [True, False])
def test_one_that_was_cut_off_takes_nothing_that_was_decided_otherwise_meanwhile(
    consul: ConsulServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, moving: bool
) -> None:
    """Its shim knows a placement in which it was no reserve. Without a migration nothing is asked before a take."""
    caplog.set_level(logging.DEBUG, "outrider.lease")
    session = leases.create_session(consul.client, "local")
    doc = LeaseDoc("A", 1, "A-1", "other", members=MEMBERS, state="held")
    leases.acquire(consul.client, doc, 0, session)
    leases.release(consul.client, replace(doc, state="released"), session)
    place(consul, reserve=True)
    refused = "the placement of A does not let A-2 take the lease"

    async def act() -> None:
        runtime = tmp_path / "run"
        runtime.mkdir()
        keeper = LeaseKeeper(
            consul.client, host="local", runtime_dir=runtime, state_dir=tmp_path, changed=lambda instance: None
        )
        keeper.start()
        try:
            keeper.want("A", "A-2", MEMBERS, frozenset(), sole=False, ready=True, moving=moving)
            if moving:
                await until(lambda: refused in caplog.text)
                assert not keeper.held
                assert get_doc(consul.client, leases.LEASES + "A", LeaseDoc)[0] == replace(doc, state="released")
                place(consul, reserve=False)
            await until(lambda: "A" in keeper.held)
        finally:
            await keeper.stop()

    asyncio.run(act())
    assert (refused in caplog.text) is moving
