"""The shim's probe of an agent that serves calls: its own word, over its Unix socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.calls import Agent
from outrider.calls.endpoint import socket_path
from outrider.fleet.effective import default_probes
from outrider.fleet.spec import Agent as Declared
from outrider.fleet.spec import Probe
from outrider.host.call_prober import CallProber
from outrider.host.probers import Target


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent("Echo", instance="Echo-1", socket=socket_path(tmp_path, "Echo-1"))
    made.start()
    yield made
    made.stop()


def prober(runtime: Path) -> CallProber:
    target = Target("Echo-1", "127.0.0.1", 1, {"call": 1}, runtime / "beat", "Echo", runtime)
    return CallProber(Probe(type="call", timeout_s=2.0), target)


async def test_an_agent_is_well_until_it_says_otherwise(agent: Agent, tmp_path: Path) -> None:
    asking = prober(tmp_path)
    for _ in range(3):
        assert (await asking.check()).ok
    agent.ready(False, "loads its model")
    found = await asking.check()
    assert (found.ok, found.detail) == (False, "health call: loads its model")
    agent.ready(True)
    assert (await asking.check()).ok
    asking.close()


async def test_one_that_is_gone_and_back_is_noticed(agent: Agent, tmp_path: Path) -> None:
    asking = prober(tmp_path)
    assert (await asking.check()).ok
    agent.stop()
    assert not (await asking.check()).ok
    agent.start()
    assert (await asking.check()).ok
    asking.close()


@pytest.mark.parametrize(
    ("ports", "probe"),
    [
        ({"main": "auto", "call": "auto"}, Probe(type="call", port="call")),
        ({"main": "auto", "call": "auto", "health": "auto"}, Probe(type="http")),
        ({"main": "auto"}, Probe(type="tcp")),
    ],
)
def test_who_serves_calls_needs_no_other_probe(ports: dict[str, str], probe: Probe) -> None:
    assert default_probes(Declared(command=("x",), ports=ports)) == (probe,)  # type: ignore[arg-type]
