"""A shim's API on its real Unix socket, served by aiohttp as the shim serves it, with a fleet that tests may change."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from msgspec.structs import replace

from outrider.cli.main import main
from outrider.host.reports import (
    ActionReport,
    BreakersReport,
    CallsReport,
    DoctorReport,
    EventsReport,
    Finding,
    InstanceReport,
    StatusReport,
    Summary,
    UptimeReport,
)

GENERATION = 3  # of every instance, once it is told something


def instance(name: str, status: str = "passing", host: str = "gpu1", **more: object) -> InstanceReport:
    """One instance of the test fleet."""
    agent, _, number = name.rpartition("-")
    plain = {"agent": agent, "instance": name, "host": host, "address": "127.0.0.1", "port": 7000 + int(number),
             "status": status, "role": "replica", "epoch": 0, "version": "0123456789ab", "since": 1.0, "age_s": 0.0,
             "pid": 12}  # fmt: skip
    return msgspec.convert({**plain, **more}, InstanceReport)


class Shim:
    """What it answers. `acts` is called with action and name, and may change `instances`; `told` are those calls."""

    def __init__(self) -> None:
        self.instances = {item.instance: item for item in (instance("Memory-1"), instance("Planner-1", host="gpu2"))}
        self.consul = "reachable"
        self.findings: tuple[Finding, ...] = (Finding("documents", True, "2 agents"),)
        self.calls = CallsReport()
        self.breakers = BreakersReport()
        self.events = EventsReport()
        self.uptime = UptimeReport({"1 h": None})
        self.logs = {"Memory-1": "one\ntwo\nthree\n"}
        self.told: list[tuple[str, str]] = []
        self.acts: Callable[[str, str], None] = lambda action, name: None
        self.asked: list[str] = []
        self.denied = ""  # Consul's refusal of what is told, if it refuses that

    def change(self, name: str, **more: object) -> None:
        """An instance is otherwise from now on."""
        self.instances[name] = replace(self.instances[name], **more)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/v1/doctor", self._doctor)
        app.router.add_get("/v1/calls", self._calls)
        app.router.add_get("/v1/breakers", self._breakers)
        app.router.add_get("/v1/events", self._events)
        app.router.add_get("/v1/uptime", self._uptime)
        app.router.add_get("/v1/logs/{instance}", self._logs)
        app.router.add_post("/v1/agents/{name}/{action}", self._act)
        app.router.add_post("/v1/shutdown", self._shut_down)
        return app

    async def _health(self, request: web.Request) -> web.Response:
        return answer({"host": "gpu1", "consul": self.consul})

    async def _status(self, request: web.Request) -> web.Response:
        items = tuple(self.instances.values())
        passing = sum(item.status == "passing" for item in items)
        hosts = len({item.host for item in items})
        return answer(StatusReport("lab", Summary(len(items), len(items), passing, hosts, self.consul), items))

    async def _doctor(self, request: web.Request) -> web.Response:
        return answer(DoctorReport("gpu1", self.findings))

    async def _calls(self, request: web.Request) -> web.Response:
        return answer(self.calls)

    async def _breakers(self, request: web.Request) -> web.Response:
        return answer(self.breakers)

    async def _events(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        return answer(self.events)

    async def _uptime(self, request: web.Request) -> web.Response:
        return answer(self.uptime)

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        text = self.logs[request.match_info["instance"]]
        if "follow" not in request.query:
            return web.Response(text=text)
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in text.encode():  # in pieces that tear lines and letters
            await response.write(bytes([byte]))
        return response

    async def _act(self, request: web.Request) -> web.Response:
        name, action = request.match_info["name"], request.match_info["action"]
        self.told.append((action, name))
        if name == "Planner":
            return answer({"error": "Consul lost a write", "hint": "run again"}, 409)
        if self.denied:
            return answer({"error": self.denied, "hint": ""}, 403)
        self.acts(action, name)
        names = tuple(i for i in self.instances if name in (i, i.rpartition("-")[0]))
        return answer(ActionReport(action, names, dict.fromkeys(names, GENERATION)))

    async def _shut_down(self, request: web.Request) -> web.Response:
        self.told.append(("shutdown", ""))
        return answer({"stopped": True})


def answer(value: object, status: int = 200) -> web.Response:
    """As the shim encodes it."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def serve(runtime: Path, app: web.Application) -> Iterator[None]:
    """Serve `app` at the runtime folder's socket, in a thread with an event loop of its own."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(app, handle_signals=False)
    loop.run_until_complete(runner.setup())
    folder = os.open(runtime, os.O_PATH | os.O_DIRECTORY)
    loop.run_until_complete(web.UnixSite(runner, f"/proc/self/fd/{folder}/outriderd.sock").start())
    os.close(folder)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A runtime folder."""
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def shim(runtime: Path) -> Iterator[Shim]:
    """A shim that answers there."""
    made = Shim()
    running = serve(runtime, made.app())
    next(running)
    yield made
    assert next(running, None) is None


@pytest.fixture
def outrider(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line with that runtime folder; no Consul answers."""
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    monkeypatch.setenv("COLUMNS", "100")
    return lambda *words: main(["--runtime", str(runtime), *words])
