"""A real shim remembers what happened, also after it was killed."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import msgspec
import pytest

from outrider.errors import OutriderError
from outrider.host.reports import EventsReport, UptimeReport
from outrider.host.shim_client import ShimClient

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)


def events(host: ShimHost, query: str = "") -> list[tuple[str, str]]:
    report = msgspec.json.decode(host.request("GET", f"/v1/events?{query}"), type=EventsReport)
    return [(event.what, event.why) for event in report.events]


def test_a_death_is_remembered_in_order_with_its_reason(serving: ShimHost) -> None:
    before = len(events(serving, "name=Alpha-1"))
    os.kill(serving.pid("Alpha"), signal.SIGKILL)
    serving.wait(lambda: "passing" in [what for what, _ in events(serving, "name=Alpha-1")[before:]])
    told = events(serving, "name=Alpha")
    assert told[before] == ("critical", "exited: killed by SIGKILL")
    assert told[-1][0] == "passing"
    assert events(serving, "name=Beta&what=critical") == []
    serving.end(signal.SIGKILL)
    serving.start()
    serving.wait(lambda: serving.report("Alpha") is not None)
    assert events(serving, "name=Alpha")[: len(told)] == told
    assert "observing" in [what for what, _ in events(serving)]


@pytest.mark.parametrize("query", ["limit=many", "since=-1", "limit=nan", "since=inf"])
def test_a_number_that_is_none_is_refused_by_name(serving: ShimHost, query: str) -> None:
    name, _, value = query.partition("=")
    with pytest.raises(OutriderError, match=f"/v1/events: {name} is '{value}', allowed is a number from 0 on"):
        ShimClient(serving.folder / "runtime").get(f"/v1/events?{query}", EventsReport)


def test_uptime_is_the_share_of_the_observed_time(serving: ShimHost) -> None:
    def report() -> UptimeReport:
        return msgspec.json.decode(serving.request("GET", "/v1/uptime?agent=Alpha"), type=UptimeReport)

    rows = serving.wait(lambda: [row for row in report().agents if row.observed_s > 2.0])
    assert rows[0].agent == "Alpha"
    share = rows[0].shares["1 h"]
    assert share is not None
    assert 0.3 < share <= 1.0
