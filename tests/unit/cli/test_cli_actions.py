"""Start, stop and restart from the command line, of instances on this host and on others."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from outrider.cli.actions import reached
from unit.cli.conftest import GENERATION, Shim, instance

Outrider = Callable[..., int]
NAMES = ("Memory-1", "Planner-1")  # here, and on another host, of which no process id is known here


@pytest.mark.parametrize("name", NAMES)
def test_a_restart_waits_for_the_next_process_wherever_it_runs(
    name: str, shim: Shim, outrider: Outrider, capsys: pytest.CaptureFixture[str]
) -> None:
    shim.change(name, generation=GENERATION - 1)
    shim.acts = lambda action, told: shim.change(told, generation=GENERATION)
    assert outrider("restart", name) == 0
    assert shim.told == [("restart", name)]
    assert capsys.readouterr().out.startswith(f"{name}: passing after")


def test_what_is_not_restarted_in_time_is_told_with_its_host(
    shim: Shim, outrider: Outrider, capsys: pytest.CaptureFixture[str]
) -> None:
    shim.change("Planner-1", generation=GENERATION - 1)
    assert outrider("restart", "Planner-1", "--timeout", "0.1") == 1
    said = capsys.readouterr().err
    assert "Planner-1 is not there after 0 s: passing" in said
    assert "see `outrider logs Planner-1` on gpu2" in said
    assert outrider("restart", "Planner-1", "--timeout", "0.1", "--json") == 1
    assert json.loads(capsys.readouterr().out)["left"] == {"Planner-1": "passing"}


def test_an_instance_is_there_when_it_is_as_asked() -> None:
    assert not reached("start", None, 0)
    assert reached("start", instance("A-1", "warning"), 0)
    assert not reached("stop", instance("A-1"), 0)
    assert reached("stop", instance("A-1", "stopped"), 0)
    assert not reached("restart", instance("A-1", generation=1), 2)
    assert not reached("restart", instance("A-1", "starting", generation=2), 2)
    assert reached("restart", instance("A-1", generation=2), 2)
    assert reached("restart", instance("A-1", generation=3), 2)  # somebody asked once more meanwhile


def test_a_host_that_may_not_change_an_agent_says_at_once_which_may(
    shim: Shim, outrider: Outrider, capsys: pytest.CaptureFixture[str]
) -> None:
    shim.denied = "the token may not write outrider/placement/Planner"
    assert outrider("restart", "Planner-1") == 1
    said = capsys.readouterr().err
    assert shim.denied in said
    assert "ask on gpu2, or where a Consul server runs" in said
