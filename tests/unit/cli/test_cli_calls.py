"""`outrider calls` and `outrider breakers`: what they show, and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from outrider.host.reports import BreakersReport, CallRow, CallsReport, CircuitRow, SampleRow

if TYPE_CHECKING:
    from conftest import Shim

Outrider = Callable[..., int]


def row(caller: str, agent: str, per_s: float, **outcomes: int) -> CallRow:
    calls = sum(outcomes.values())
    failed = calls - outcomes.get("ok", 0)
    return CallRow(caller, agent, calls, per_s, failed, outcomes, 1, 2, 0.001, None, {"recall": calls})


CALLS = CallsReport(
    (
        row("Planner-1", "Memory", 1.0, ok=5),
        row("Asker-1", "Memory", 9.0, ok=7, timeout=2),
        row("Asker-1", "Speech", 0.0),
    ),
    (SampleRow(1.0, "Asker-1", "Memory", "recall", "timeout", 0.5, "00-" + "ab" * 16 + "-" + "0" * 16 + "-01"),),
)


def test_the_busiest_come_first_with_what_failed(
    outrider: Outrider, shim: Shim, capsys: pytest.CaptureFixture[str]
) -> None:
    shim.calls = CALLS
    assert outrider("calls") == 0
    out = capsys.readouterr().out
    assert "10.0 calls/s; 14 calls so far, 2 failed" in out
    assert out.index("Asker-1") < out.index("Planner-1")
    assert "2 timeout" in out
    assert "<1 ms" in out


def test_samples_are_shown_when_asked_for(outrider: Outrider, shim: Shim, capsys: pytest.CaptureFixture[str]) -> None:
    shim.calls = CALLS
    assert outrider("calls", "--samples") == 0
    assert "ab" * 16 in capsys.readouterr().out


@pytest.mark.parametrize(("name", "count"), [("Speech", 1), ("Asker", 2), ("Asker-1", 2), ("Memory", 2), ("Nobody", 0)])
def test_a_name_is_a_caller_or_who_is_called(
    outrider: Outrider, shim: Shim, capsys: pytest.CaptureFixture[str], name: str, count: int
) -> None:
    shim.calls = CALLS
    assert outrider("calls", name, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["calls"]) == count


def test_a_circuit_that_is_not_closed_is_named_and_is_exit_code_1(
    outrider: Outrider, shim: Shim, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = CircuitRow("Asker-1", "Memory", "Memory-1", "closed", "", 0, 1, ill=False)
    shim.breakers = BreakersReport((closed,))
    assert outrider("breakers") == 0
    assert "1 of 1 circuit closed" in capsys.readouterr().out
    opened = CircuitRow("Asker-1", "Memory", "Memory-2", "open", "connection lost", 3, 0, ill=True)
    shim.breakers = BreakersReport((opened, closed))
    assert outrider("breakers") == 1
    out = capsys.readouterr().out
    assert "1 of 2 circuits closed" in out
    assert "connection lost" in out
    assert "Memory-2" in out
    assert outrider("breakers", "Memory-1") == 0
