"""`outrider events` and `outrider uptime`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.console import Console

from outrider.cli.history import duration, events_table, line_of, share_text, uptime_table
from outrider.cli.parser import UsageError, build_parser
from outrider.host.reports import EventRow, EventsReport, UptimeReport, UptimeRow

if TYPE_CHECKING:
    from conftest import Shim

Outrider = Callable[..., int]
DIED = EventRow(0.25, "critical", "Echo", "Echo-1", "pc1", "exited: killed", 0, 61.0)


def rendered(what: object) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_an_event_is_one_line_with_its_reason() -> None:
    shown = rendered(events_table((DIED, EventRow(2.0, "holder", "Memory", "Memory-2", "pc2", "", 7, 0.0))))
    assert "Echo-1" in shown
    assert "exited: killed" in shown
    assert "1 min" in shown
    assert line_of(DIED).endswith("Echo-1: critical (exited: killed)")


def test_the_agent_that_was_away_the_longest_comes_first() -> None:
    rows = (UptimeRow("A", {"1 h": 1.0}, 10.0, 0.0), UptimeRow("B", {"1 h": 0.5}, 10.0, 5.0))
    shown = rendered(uptime_table(UptimeReport({"1 h": 0.75}, rows)))
    assert shown.index("B ") < shown.index("A ")


@pytest.mark.parametrize(("share", "text"), [(None, "-"), (1.0, "100 %"), (0.9999999, "99.999 %"), (0.5, "50.000 %")])
def test_a_share_is_never_rounded_up_to_all(share: float | None, text: str) -> None:
    assert share_text(share) == text


def test_spans_and_kinds_are_read() -> None:
    args = build_parser(()).parse_args(["events", "Echo", "--since", "2h", "--what", "critical,holder"])
    assert (args.name, args.since, args.what) == ("Echo", 7200.0, ("critical", "holder"))
    with pytest.raises(UsageError, match="allowed: a number and s, m, h or d"):
        build_parser(()).parse_args(["events", "--since", "soon"])
    assert duration(0.0) == "-"


def test_what_is_asked_for_is_asked_of_the_shim(
    outrider: Outrider, shim: Shim, capsys: pytest.CaptureFixture[str]
) -> None:
    shim.events = EventsReport((DIED,))
    assert outrider("events", "Echo", "--what", "critical,holder", "--limit", "7") == 0
    assert "exited: killed" in capsys.readouterr().out
    (asked,) = shim.asked
    assert parse_qs(urlsplit(asked).query) == {
        "name": ["Echo"],
        "what": ["critical,holder"],
        "since": ["0.0"],
        "limit": ["7"],
    }
    assert outrider("events", "--json") == 0
    assert json.loads(capsys.readouterr().out)["events"][0]["lasted_s"] == 61.0


@pytest.mark.parametrize("command", ["events", "uptime"])
def test_a_name_that_nothing_has_is_said_with_the_nearest(
    outrider: Outrider, shim: Shim, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert outrider(command, "Memori") != 0
    assert "did you mean Memory?" in capsys.readouterr().err
    assert outrider(command, "Memory") == 0
