"""What the shim answers about migrations that are not there yet: of one agent, of several, or of all on a host."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from outrider.daemon.migration_eyes import Eyes
from outrider.errors import MigrationRefused
from outrider.host.shim_client import ShimClient
from outrider.migration.staged.ask import Plan, Wish, create, plans
from outrider.migration.staged.by_risk import by_risk
from outrider.migration.staged.preview import PlansReport, Traffic, report
from outrider.migration.staged.records import Given

if TYPE_CHECKING:
    from outrider.daemon.shim import Shim

LOOK_S = 0.5


def add_migration_plans(app: web.Application, key: web.AppKey[Shim]) -> None:
    """Add the route. `key`: where the app keeps the shim."""

    async def plan(request: web.Request) -> web.Response:
        """`?agents=A,B&leave=HOST&to=HOST&source=INSTANCE&policy=JSON&override=&by=&why=`.

        `rehearse`: it ends before the cutover; `readable`: the old version reads the new one's files; `dry`: writes
        nothing.
        """
        shim, wish, dry = request.app[key], _wish(request), "dry" in request.query
        # It asks this shim too, on its socket: the event loop must not wait for it.
        policy = by_risk(shim.consul, ShimClient(shim.config.runtime_dir), shim.config.releases)
        found = await asyncio.to_thread(partial(plans, shim.consul, wish, policy=policy))
        traffic = await _traffic(shim, found) if dry else None
        if not dry:
            await asyncio.to_thread(partial(create, shim.consul, found))
        answer: PlansReport = report(found, traffic, created=not dry)
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    app.router.add_post("/v1/migration-plans", plan)


def _wish(request: web.Request) -> Wish:
    """From the query. Raises MigrationRefused for a value that is not allowed."""
    query = dict(request.query)
    query.pop("dry", None)
    flags = {name: True for name in ("rehearse", "readable") if query.pop(name, None) is not None}
    agents = tuple(filter(None, query.pop("agents", "").split(",")))
    policy = query.pop("policy", "")
    try:
        judged = msgspec.json.decode(policy, type=Given) if policy else Given()
        return msgspec.convert({**query, "agents": agents, "policy": judged, **flags}, Wish)
    except msgspec.MsgspecError as error:
        raise MigrationRefused([f"the question cannot be understood: {error}"]) from error


async def _traffic(shim: Shim, found: Sequence[Plan]) -> dict[str, Traffic]:
    """What the old instances say of their calls, looked at twice."""
    spots = {plan.spec.source.instance: plan.spec.source.host for plan in found}
    eyes = Eyes(lambda: shim.feed.view, shim.config)
    clock = asyncio.get_running_loop().time
    try:
        began = clock()
        await eyes.ask(spots)
        before = dict(eyes.counts)
        await asyncio.sleep(LOOK_S)
        await eyes.ask(spots)
        seconds = clock() - began
    finally:
        eyes.close()
    return {
        name: Traffic(now, max(0, now.calls - before[name].calls) / seconds)
        for name, now in eyes.counts.items()
        if name in before
    }
