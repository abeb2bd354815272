"""What the shim answers about migrations, and how people plan and steer them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import msgspec
from aiohttp import web

from outrider.errors import MigrationRefused
from outrider.migration.staged.desk import Desk
from outrider.migration.staged.records import Journal, Question, Resolution
from outrider.migration.staged.report import MigrationReport, MigrationsReport, report_of

if TYPE_CHECKING:
    from outrider.daemon.shim import Shim

T = TypeVar("T")
STEERING = {"by", "said", "approves", "resolution"}


def add_migrations(app: web.Application, key: web.AppKey[Shim]) -> None:
    """Add the routes. `key`: where the app keeps the shim."""

    async def several(request: web.Request) -> web.Response:
        shim = request.app[key]
        journals, problems = await _thread(Desk(shim.consul).journals)
        found = tuple(_report(shim, journal) for journal in journals)
        return _json(MigrationsReport(found, problems))

    async def one(request: web.Request) -> web.Response:
        shim = request.app[key]
        return _json(_report(shim, await _thread(partial(Desk(shim.consul).get, request.match_info["id"]))))

    async def steer(request: web.Request) -> web.Response:
        shim, query, name = request.app[key], request.query, request.match_info["id"]
        by, said = query.get("by", ""), query.get("said", "")
        if unknown := sorted(query.keys() - STEERING):  # a later version means something by it
            raise MigrationRefused([f"the question cannot be understood: unknown field {', '.join(unknown)}"])
        desk = Desk(shim.consul)
        ways: dict[str, Callable[[], Journal]] = {
            "approve": partial(desk.approve, name, by, said, _question(query.get("approves", "cutover"))),
            "pause": partial(desk.pause, name, by),
            "resume": partial(desk.resume, name, by),
            "rollback": partial(desk.rollback, name, by, said),
        }
        if request.match_info["action"] == "resolve":
            ways["resolve"] = partial(desk.resolve, name, by, _resolution(query.get("resolution", "")), said)
        return _json(_report(shim, await _thread(ways[request.match_info["action"]])))

    app.router.add_get("/v1/migrations", several)
    app.router.add_get("/v1/migrations/{id}", one)
    app.router.add_post("/v1/migrations/{id}/{action:approve|pause|resume|rollback|resolve}", steer)


def _report(shim: Shim, journal: Journal) -> MigrationReport:
    return report_of(journal, time.time(), shim.migrations.waits.get(journal.id))


def _question(text: str) -> Question:
    found: Question = _allowed("approves", text, Question)
    return found


def _resolution(text: str) -> Resolution:
    found: Resolution = _allowed("resolution", text, Resolution)
    return found


def _allowed(name: str, text: str, kind: Any) -> Any:
    try:
        return msgspec.convert(text, kind)
    except msgspec.ValidationError:
        raise MigrationRefused([f"{name} is {text!r}, allowed: {', '.join(get_args(kind))}"]) from None


async def _thread(call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, call)


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
