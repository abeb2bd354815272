"""What a later command line asks of a shim is refused by name, and not done without what the shim does not know."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from outrider.daemon.migration_api import add_migrations
from outrider.daemon.migration_plans import _wish
from outrider.errors import MigrationRefused


def test_a_plan() -> None:
    known = make_mocked_request("POST", "/v1/migration-plans?agents=A,B&to=h2&by=ann&rehearse=&dry=")
    assert (_wish(known).agents, _wish(known).rehearse) == (("A", "B"), True)
    later = make_mocked_request("POST", "/v1/migration-plans?agents=A&to=h2&by=ann&shadow=")
    with pytest.raises(MigrationRefused, match=r"cannot be understood: .*unknown field `shadow`"):
        _wish(later)


def test_a_word_to_one_that_is_under_way() -> None:
    key: web.AppKey[Any] = web.AppKey("shim", object)
    app = web.Application()
    add_migrations(app, key)
    app[key] = SimpleNamespace(consul=None)

    async def ask() -> None:
        request = make_mocked_request("POST", "/v1/migrations/m/approve?by=ann&half=", app=app)
        found = await app.router.resolve(request)
        request._match_info = found
        found.add_app(app)
        await found.handler(request)

    with pytest.raises(MigrationRefused, match="unknown field half"):
        asyncio.run(ask())
