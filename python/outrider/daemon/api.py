"""What the shim answers over HTTP: everything on its Unix socket, what Prometheus reads also on TCP."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from outrider.daemon.commands import act, restartable
from outrider.daemon.doctor import examine
from outrider.daemon.fleet_view import status_of
from outrider.daemon.listener import Listener
from outrider.daemon.migration_api import add_migrations
from outrider.daemon.migration_plans import add_migration_plans
from outrider.daemon.placing import add_placing
from outrider.errors import ConsulDenied, ConsulUnreachable, HostError, OutriderError, UnknownAgent, UnknownMigration
from outrider.host.logs import follow, tail

if TYPE_CHECKING:
    from outrider.daemon.shim import Shim

SHIM = web.AppKey["Shim"]("shim")


async def serve_api(shim: Shim) -> Callable[[], Awaitable[None]]:
    """Listen on the socket and on TCP. Returns what stops it. Raises HostError if it cannot listen."""
    private, public = web.Application(middlewares=[_errors]), web.Application(middlewares=[_errors])
    for app in (private, public):
        app[SHIM] = shim
        app.router.add_get("/metrics", _metrics)
        app.router.add_get("/sd", _service_discovery)
        app.router.add_get("/health", _health)
    private.router.add_get("/v1/status", _status)
    private.router.add_get("/v1/doctor", _doctor)
    private.router.add_get("/v1/calls", _calls)
    private.router.add_get("/v1/breakers", _breakers)
    private.router.add_get("/v1/events", _events)
    private.router.add_get("/v1/uptime", _uptime)
    private.router.add_get("/v1/logs/{instance}", _logs)
    add_placing(private, SHIM)
    add_migrations(private, SHIM)
    add_migration_plans(private, SHIM)
    private.router.add_post("/v1/agents/{name}/{action}", _act)
    private.router.add_post("/v1/shutdown", _shut_down)
    runners = [web.AppRunner(app, access_log=None, handle_signals=False) for app in (private, public)]
    for runner in runners:
        await runner.setup()
    await _listen_on_socket(runners[0], shim.config.socket)
    config = shim.config
    listener = Listener(runners[1], config.http_host, config.http_port, config.http_tls)
    await listener.start()
    shim.renewals.append(listener.renew)

    async def stop() -> None:
        for runner in runners:
            await runner.cleanup()
        listener.close()

    return stop


async def _listen_on_socket(runner: web.AppRunner, path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    # The address of a Unix socket holds 107 bytes; through its folder's descriptor any path fits.
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    old = os.umask(0o117)
    try:
        await web.UnixSite(runner, f"/proc/self/fd/{folder}/{path.name}").start()
    except OSError as error:
        raise HostError(f"cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(old)
        os.close(folder)


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except OutriderError as error:
        return _json({"error": error.message, "hint": error.hint}, status=_status_of(error))


def _status_of(error: OutriderError) -> int:
    statuses = {_BadQuery: 400, UnknownAgent: 404, UnknownMigration: 404, ConsulDenied: 403, ConsulUnreachable: 503}
    return next((status for kind, status in statuses.items() if isinstance(error, kind)), 409)


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


class _BadQuery(OutriderError):
    """A request whose query cannot be understood: 400."""


def _number(request: web.Request, name: str, default: float) -> float:
    """From the query, not below 0. Raises _BadQuery."""
    text = request.query.get(name)
    if text is None:
        return default
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise _BadQuery(f"{request.path}: {name} is {text[:40]!r}, allowed is a number from 0 on")


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(body=request.app[SHIM].metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})


async def _health(request: web.Request) -> web.Response:
    shim = request.app[SHIM]
    return _json({"host": shim.config.host, "consul": "reachable" if shim.reachable else "unreachable"})


async def _service_discovery(request: web.Request) -> web.Response:
    """Prometheus HTTP service discovery: each host's shim, as Consul knows it."""
    return _json(request.app[SHIM].targets.groups())


async def _status(request: web.Request) -> web.Response:
    return _json(status_of(request.app[SHIM]))


async def _events(request: web.Request) -> web.Response:
    """`?name=&what=a,b&since=UNIX&limit=N`."""
    query = request.query
    what = frozenset(filter(None, query.get("what", "").split(",")))
    since, limit = _number(request, "since", 0.0), int(_number(request, "limit", 100.0))
    return _json(request.app[SHIM].history.events(query.get("name", ""), what, since, limit))


async def _uptime(request: web.Request) -> web.Response:
    return _json(request.app[SHIM].history.uptime(request.query.get("agent", "")))


async def _calls(request: web.Request) -> web.Response:
    return _json(request.app[SHIM].calls.calls_report())


async def _breakers(request: web.Request) -> web.Response:
    return _json(request.app[SHIM].calls.breakers_report())


async def _doctor(request: web.Request) -> web.Response:
    return _json(examine(request.app[SHIM]))


async def _logs(request: web.Request) -> web.StreamResponse:
    shim = request.app[SHIM]
    instance = request.match_info["instance"]
    path = shim.config.log_dir / "agents" / f"{instance}.log"
    if instance not in shim.locals or not path.exists():
        raise UnknownAgent(f"no instance {instance} on host {shim.config.host} has a log")
    lines = min(int(_number(request, "lines", 100.0)), 100_000)
    if "follow" not in request.query:
        return web.Response(text="".join(f"{line}\n" for line in tail(path, lines)))
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    await response.prepare(request)
    async for chunk in follow(path, lines):
        await response.write(chunk.encode())
    return response


async def _act(request: web.Request) -> web.Response:
    action = restartable(request.match_info["action"])
    return _json(await act(request.app[SHIM], request.match_info["name"], action))


async def _shut_down(request: web.Request) -> web.Response:
    await request.app[SHIM].shut_down()
    return _json({"stopped": True})
