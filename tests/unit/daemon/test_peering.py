"""What the peers are told of an instance's changes, and when Consul knows better than they."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from outrider.daemon.peering import Peering
from outrider.fleet.spec import Agent
from outrider.host.config import Config
from outrider.host.peers import NO_EVIDENCE, Peers, lost
from outrider.host.state import Local
from outrider.registry.layout import AgentDoc, Placed
from outrider.registry.services import CheckState

ECHO = AgentDoc("Echo", "reference", Agent(), "v1")


class Said:
    """Notes what Peers is told instead of sending it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[str, bool, str]] = []
        self.forgotten: list[tuple[str, str, float]] = []
        monkeypatch.setattr(Peers, "report", lambda _, name, down, since, why: self.told.append((name, down, why)))
        monkeypatch.setattr(Peers, "forget", lambda _, host, name, at: self.forgotten.append((host, name, at)))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    key = tmp_path / "peers.key"
    key.write_bytes(base64.b64encode(bytes(32)))
    key.chmod(0o600)
    return Config("fleet", "gpu1", tmp_path, tmp_path, tmp_path, peers_key_file=key)


@pytest.fixture
def peering(config: Config) -> Peering:
    return Peering(config, dict, lambda host: (), lambda: None)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    return Said(monkeypatch)


def local(status: Any, detail: str = "") -> Local:
    return Local(ECHO, Placed("Echo-1", "gpu1", "v1"), "replica", status, detail)


def test_a_death_is_told_once_and_so_is_the_recovery(peering: Peering, said: Said) -> None:
    for status, detail in (
        ("starting", ""),
        ("passing", "ok"),
        ("critical", "exited: signal 9"),
        ("starting", ""),
        ("critical", "starting"),
        ("passing", "ok"),
        ("warning", "need is down"),
        ("passing", "ok"),
        ("stopped", "by request"),
    ):
        peering.tell(local(status, detail))
    assert said.told == [
        ("Echo-1", True, "exited: signal 9"),
        ("Echo-1", False, "ok"),
        ("Echo-1", True, "by request"),
    ]


def test_a_cold_standby_that_takes_over_is_not_called_before_it_runs(peering: Peering, said: Said) -> None:
    for status, detail in (("starting", ""), ("passing", "standby"), ("starting", "has the lease"), ("passing", "ok")):
        peering.tell(local(status, detail))
    assert said.told == [("Echo-1", True, "has the lease"), ("Echo-1", False, "ok")]


def test_what_hung_and_then_died_is_told_twice(peering: Peering, said: Said) -> None:
    """Of one that hangs routing keeps a doubt, of one that died it does not."""
    peering.tell(local("critical", "probe: no answer"))
    peering.tell(local("critical", "probe: no answer still"))
    peering.tell(local("critical", "exited: signal 9"))
    assert said.told == [("Echo-1", True, "probe: no answer"), ("Echo-1", True, "exited: signal 9")]


def test_an_instance_that_was_taken_away_starts_anew(peering: Peering, said: Said) -> None:
    peering.tell(local("critical", "exited: 1"))
    peering.gone("Echo-1")
    peering.tell(local("starting"))
    peering.tell(local("passing"))
    assert said.told == [("Echo-1", True, "exited: 1")]


def test_news_from_before_a_failure_that_consul_saw_and_saw_end_is_forgotten(peering: Peering, said: Said) -> None:
    def check(node: str) -> CheckState:
        return CheckState(node, "outrider:Echo-1", "Echo-1", "Echo", "critical", "exited: 1")

    peering.consul_says([check("gpu2"), check("gpu3"), CheckState("gpu2", "serfHealth", "", "", "critical", "")])
    peering.consul_says([check("gpu3")])
    assert [(host, name) for host, name, _ in said.forgotten] == [("gpu2", "Echo-1")]
    peering.consul_says([check("gpu2"), check("gpu3")])
    peering.consul_says([])
    times = {host: at for host, _, at in said.forgotten[1:]}
    assert set(times) == {"gpu2", "gpu3"}
    # What counts is when the failure that ended was first seen.
    assert times["gpu3"] < said.forgotten[0][2] + 1.0
    assert times["gpu3"] <= times["gpu2"]


async def test_without_a_key_there_are_no_peers(tmp_path: Path) -> None:
    peering = Peering(Config("fleet", "gpu1", tmp_path, tmp_path, tmp_path), dict, lambda host: (), lambda: None)
    await peering.start()
    peering.tell(local("critical"))
    peering.gone("Echo-1")
    peering.consul_says([])
    assert (peering.peers, peering.evidence) == (None, NO_EVIDENCE)
    await peering.stop()


async def test_who_is_voted_down_is_asked_whether_it_is_lost(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, silent = asyncio.Queue[frozenset[str]](), [True]

    async def knock(door: tuple[str, int]) -> bool:
        await asyncio.sleep(0)
        return not silent[0]

    monkeypatch.setattr(lost, "answers", knock)
    peering = Peering(
        config, dict, lambda host: [("10.0.0.2", 7200)], lambda: changes.put_nowait(peering.evidence.lost)
    )
    assert peering.peers
    peering.peers._down = frozenset({"gpu2"})
    peering._heard_news()
    assert await asyncio.wait_for(changes.get(), 5) == frozenset()
    assert await asyncio.wait_for(changes.get(), 5) == {"gpu2"}
    peering.peers._down = frozenset()
    peering._heard_news()
    assert await asyncio.wait_for(changes.get(), 5) == frozenset()
    await peering.stop()
