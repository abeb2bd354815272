"""What the shim answers over HTTP: everything on its Unix socket, what Prometheus reads also on TCP."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from outrider.daemon.commands import act, restartable
from outrider.daemon.doctor import examine
from outrider.errors import HostError, OutriderError, UnknownAgent
from outrider.host.logs import follow, tail
from outrider.host.reports import InstanceReport, StatusReport, Summary

if TYPE_CHECKING:
    from outrider.daemon.shim import Shim

SHIM = web.AppKey["Shim"]("shim")


async def serve_api(shim: Shim) -> Callable[[], Awaitable[None]]:
    """Listen on the socket and on loopback. Returns what stops it. Raises HostError if it cannot listen."""
    private, public = web.Application(middlewares=[_errors]), web.Application(middlewares=[_errors])
    for app in (private, public):
        app[SHIM] = shim
        app.router.add_get("/metrics", _metrics)
        app.router.add_get("/sd", _service_discovery)
        app.router.add_get("/health", _health)
    private.router.add_get("/v1/status", _status)
    private.router.add_get("/v1/doctor", _doctor)
    private.router.add_get("/v1/logs/{instance}", _logs)
    private.router.add_post("/v1/agents/{name}/{action}", _act)
    private.router.add_post("/v1/shutdown", _shut_down)
    runners = [web.AppRunner(app, access_log=None, handle_signals=False) for app in (private, public)]
    for runner in runners:
        await runner.setup()
    await _listen_on_socket(runners[0], shim.config.socket)
    try:
        await web.TCPSite(runners[1], shim.config.http_host, shim.config.http_port).start()
    except OSError as error:
        where = f"{shim.config.http_host}:{shim.config.http_port}"
        raise HostError(f"cannot listen on {where}: {error.strerror}", hint="set another http_port") from error

    async def stop() -> None:
        for runner in runners:
            await runner.cleanup()

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
        status = 404 if isinstance(error, UnknownAgent) else 409
        return _json({"error": error.message, "hint": error.hint}, status=status)


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(body=request.app[SHIM].metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})


async def _health(request: web.Request) -> web.Response:
    shim = request.app[SHIM]
    return _json({"host": shim.config.host, "consul": "reachable" if shim.reachable else "unreachable"})


async def _service_discovery(request: web.Request) -> web.Response:
    """Prometheus HTTP service discovery: this shim and each host's shim that Consul knows."""
    shim = request.app[SHIM]
    target = f"{shim.config.http_host}:{shim.config.http_port}"
    return _json([{"targets": [target], "labels": {"fleet": shim.config.fleet, "host": shim.config.host}}])


async def _status(request: web.Request) -> web.Response:
    return _json(status_of(request.app[SHIM]))


def status_of(shim: Shim) -> StatusReport:
    """Every instance that documents place anywhere: this host's at first hand, the others' as Consul says."""
    age = max(0.0, time.monotonic() - shim.confirmed_at) if shim.confirmed_at else time.time() - shim.started
    view = shim.feed.view
    served = {i.instance: i for entry in shim.publisher.entries.values() for i in entry.instances}
    outputs = {check.service_id: check.output for check in view.critical if check.service_id}
    reports = [_local_report(shim, name) for name in shim.locals]
    for placement in view.placements.values():
        for placed in placement.instances:
            if placed.host == shim.config.host and placed.instance in shim.locals:
                continue
            instance = served.get(placed.instance)
            reports.append(
                InstanceReport(
                    agent=placement.agent,
                    instance=placed.instance,
                    host=placed.host,
                    address=instance.address if instance else "",
                    port=instance.port if instance else 0,
                    status=instance.status if instance else ("stopped" if placed.state == "stopped" else "critical"),
                    role=instance.role if instance else "",
                    epoch=instance.epoch if instance else 0,
                    version=placed.version,
                    since=instance.since if instance else 0.0,
                    age_s=age,
                    detail=outputs.get(placed.instance, "" if instance else "not registered"),
                )
            )
    reports.sort(key=lambda report: report.instance)
    summary = Summary(
        agents=len({report.agent for report in reports}),
        instances=len(reports),
        passing=sum(report.status == "passing" for report in reports),
        hosts=len({report.host for report in reports}),
        consul="reachable" if shim.reachable else "unreachable",
    )
    return StatusReport(fleet=shim.config.fleet, summary=summary, instances=tuple(reports))


def _local_report(shim: Shim, name: str) -> InstanceReport:
    local = shim.locals[name]
    return InstanceReport(
        agent=local.doc.name,
        instance=local.instance,
        host=shim.config.host,
        address=shim.config.address,
        port=local.main_port,
        status=local.status,
        role=local.role,
        epoch=0,
        version=local.doc.version,
        since=local.since,
        age_s=0.0,
        detail=local.detail,
        pid=local.pid,
        restarts=local.restarts,
    )


async def _doctor(request: web.Request) -> web.Response:
    return _json(examine(request.app[SHIM]))


async def _logs(request: web.Request) -> web.StreamResponse:
    shim = request.app[SHIM]
    instance = request.match_info["instance"]
    path = shim.config.log_dir / "agents" / f"{instance}.log"
    if instance not in shim.locals or not path.exists():
        raise UnknownAgent(f"no instance {instance} on host {shim.config.host} has a log")
    lines = min(int(request.query.get("lines", "100")), 100_000)
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
