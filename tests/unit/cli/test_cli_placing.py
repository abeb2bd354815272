"""`outrider place`, `drain` and `undrain` against a shim's real socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from outrider.cli import placing
from outrider.failover.explain import Explanation, HostReport, HostRow, IfLost, Left, PlacedRow, Placements
from unit.cli.conftest import answer, serve

ROW = PlacedRow("Memory", "Memory-1", "gpu1", "run", "gpu2", "Memory-1 moves from gpu2 to gpu1: gpu2 is lost", 0.0)


class Host:
    """What the shim says of gpu2. Each look at it while it is drained takes the first of `moving` off it."""

    def __init__(self) -> None:
        self.state = "active"
        self.moving = [Left("Memory", "Memory-1", "", ""), Left("Planner", "Planner-1", "gpu1", "")]
        self.stuck: list[Left] = []
        self.asked: list[str] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/placement", self._placements)
        app.router.add_get("/v1/placement/Memory", self._explanation)
        app.router.add_get("/v1/hosts/gpu2", self._host)
        app.router.add_post("/v1/hosts/gpu2/{action}", self._set)
        return app

    async def _placements(self, _: web.Request) -> web.Response:
        return answer(Placements("gpu1", (ROW,)))

    async def _explanation(self, _: web.Request) -> web.Response:
        hosts = (HostRow("gpu1", 3, None, 512, (24,), ""), HostRow("gpu2", 0, 4.0, None, (), "is lost"))
        fate = IfLost("Memory-1", "gpu1", None, "gpu1 is lost; it may run on gpu1 alone")
        return answer(Explanation("Memory", "replicated", (ROW,), hosts, (fate,), 60.0, "01:00-05:00"))

    async def _host(self, _: web.Request) -> web.Response:
        if self.state == "drained" and self.moving:
            self.moving.pop(0)
        return self._report()

    async def _set(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        self.state = "drained" if request.match_info["action"] == "drain" else "active"
        return self._report()

    def _report(self) -> web.Response:
        return answer(HostReport("gpu2", self.state, "", 0.0, "gpu1", (*self.moving, *self.stuck)))


@pytest.fixture
def host(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(placing, "SETTLED_S", 0.2)
    made = Host()
    running = serve(runtime, made.app())
    next(running)
    yield made
    assert next(running, None) is None


Run = Callable[..., int]


def test_a_drained_host_is_waited_for(host: Host, outrider: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert outrider("drain", "gpu2", "--reason", "a new disk") == 0
    assert host.asked == ["/v1/hosts/gpu2/drain?reason=a+new+disk"]
    assert "gpu2 is drained: 2 instances left it" in capsys.readouterr().out
    assert outrider("undrain", "gpu2") == 0
    assert host.state == "active"


def test_what_stays_is_named_and_is_a_failure(host: Host, outrider: Run, capsys: pytest.CaptureFixture[str]) -> None:
    host.stuck = [Left("Bound", "Bound-1", "", "it may run on gpu2 alone")]
    assert outrider("drain", "gpu2", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["moved"] == ["Memory-1", "Planner-1"]
    assert said["stayed"] == {"Bound-1": "it may run on gpu2 alone"}


def test_without_waiting_it_says_who_decides(host: Host, outrider: Run, capsys: pytest.CaptureFixture[str]) -> None:
    host.stuck = [Left("Slow", "Slow-1", "gpu1", "")]
    assert outrider("drain", "gpu2", "--wait", "0") == 1
    assert "Slow-1 stays on gpu2: does not pass on gpu1 yet" in capsys.readouterr().err
    host.stuck = [Left("Slow", "Slow-1", "", "")]
    assert outrider("drain", "gpu2", "--wait", "0") == 1
    assert "not moved yet; the shim of gpu1 decides" in capsys.readouterr().err


def test_places_and_their_explanation(host: Host, outrider: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert outrider("place") == 0
    said = capsys.readouterr().out
    assert "Memory-1 moves from gpu2 to gpu1: gpu2 is lost" in said
    assert "the shim of gpu1 decides" in said
    assert outrider("place", "Memory", "--explain") == 0
    said = capsys.readouterr().out
    assert "Memory-1 may not move: if gpu1 were lost: gpu1 is lost; it may run on gpu1 alone" in said
    assert "512 MiB" in said
    assert "when its host has been well for 60 s, at 01:00-05:00 UTC" in said
    assert outrider("place", "Memory", "--json") == 0
    assert json.loads(capsys.readouterr().out)["instances"][0]["home"] == "gpu2"


@pytest.mark.parametrize(("words", "status"), [(("place", "--explain"), 2), (("place", "Nobody"), 1)])
def test_wrong_words_are_refused(host: Host, outrider: Run, words: tuple[str, ...], status: int) -> None:
    assert outrider(*words) == status
