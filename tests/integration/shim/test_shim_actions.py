"""Two hosts: an operator on one of them stops, starts and restarts what runs on the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.shim.shim_host import SMALL
from outrider.cli.main import main
from outrider.registry import kv
from outrider.registry.layout import FLEET, PLACEMENT, AgentDoc, Placed, PlacementDoc

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)
pytestmark = pytest.mark.integration


def test_what_runs_on_another_host_is_stopped_started_and_restarted(hosts: tuple[ShimHost, ShimHost]) -> None:
    local, other = hosts
    docs = [kv.Change(FLEET + "Alpha", AgentDoc("Alpha", "test", SMALL, "v1"), 0)]
    placement = PlacementDoc("Alpha", (Placed("Alpha-1", "other", "v1"),))
    kv.put_docs(local.consul.client, [*docs, kv.Change(PLACEMENT + "Alpha", placement, 0)])
    local.start()
    other.start()
    local.wait(lambda: other.passing("Alpha") and bool(local.served("Alpha")))
    there = ["--runtime", str(local.folder / "runtime")]
    first = other.pid("Alpha")
    assert main([*there, "restart", "Alpha"]) == 0
    second = other.pid("Alpha")
    assert second != first
    assert main([*there, "stop", "Alpha-1"]) == 0
    assert main([*there, "start", "Alpha-1"]) == 0
    assert other.pid("Alpha") not in (first, second)
    assert main([*there, "restart", "Alpha-1"]) == 0
