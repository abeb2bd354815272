"""What the shim answers about places and hosts, and how operators drain one."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal

import msgspec
from aiohttp import web
from msgspec.structs import replace

from outrider.errors import ConsulConflict, OutriderError
from outrider.failover.explain import HostReport, Placements, explain, host_report, placed_rows
from outrider.failover.placer import Picture
from outrider.registry import kv
from outrider.registry.layout import HOSTS, TAG, HostDoc

if TYPE_CHECKING:
    from outrider.daemon.shim import Shim

TRIES = 5


def add_placing(app: web.Application, key: web.AppKey[Shim]) -> None:
    """Add the routes. `key`: where the app keeps the shim."""

    async def placements(request: web.Request) -> web.Response:
        shim = request.app[key]
        return _json(Placements(shim.placer.holder, placed_rows(_picture(shim))))

    async def explanation(request: web.Request) -> web.Response:
        return _json(explain(_picture(request.app[key]), request.match_info["agent"]))

    async def host(request: web.Request) -> web.Response:
        return _json(report(request.app[key], request.match_info["host"]))

    async def set_state(request: web.Request) -> web.Response:
        shim, name = request.app[key], request.match_info["host"]
        state: Literal["active", "drained"] = "drained" if request.match_info["action"] == "drain" else "active"
        reason = request.query.get("reason", "") if state == "drained" else ""
        await asyncio.get_running_loop().run_in_executor(None, write_state, shim, name, state, reason)
        return _json(report(shim, name))

    app.router.add_get("/v1/placement", placements)
    app.router.add_get("/v1/placement/{agent}", explanation)
    app.router.add_get("/v1/hosts/{host}", host)
    app.router.add_post("/v1/hosts/{host}/{action:drain|undrain}", set_state)


def report(shim: Shim, name: str) -> HostReport:
    """A host and what is still on it. Raises OutriderError for one that is not known."""
    view = shim.feed.view
    if name not in view.hosts:
        raise _unknown(name, view.hosts)
    registered = frozenset(service.id for service in view.members.get(name, ()) if TAG in service.tags)
    return host_report(_picture(shim), name, registered, shim.placer.holder)


def write_state(shim: Shim, name: str, state: Literal["active", "drained"], reason: str) -> None:
    """Say what operators want of a host, by check-and-set. A host that is so already keeps its reason and time."""
    key = HOSTS + name
    for attempt in range(TRIES):
        doc, index = kv.get_doc(shim.consul, key, HostDoc)
        if doc is None:
            raise _unknown(name, shim.feed.view.hosts)
        if doc.state == state and reason in ("", doc.reason):
            return
        try:
            kv.put_docs(
                shim.consul, [kv.Change(key, replace(doc, state=state, reason=reason, since=time.time()), index)]
            )
            return
        except ConsulConflict:
            if attempt == TRIES - 1:
                raise


def _picture(shim: Shim) -> Picture:
    now = time.monotonic()
    shim.placer.sight.update(shim.feed.view, now)
    return shim.placer.sight.picture(shim.feed.view, now)


def _unknown(name: str, hosts: dict[str, HostDoc]) -> OutriderError:
    known = ", ".join(sorted(hosts)) or "none; run site.yml"
    return OutriderError(f"no host {name} is described in Consul", hint=f"described are: {known}")


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
