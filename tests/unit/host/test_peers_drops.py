"""Every dropped datagram is counted, and a flood of them is not one of log lines."""

from __future__ import annotations

import pytest

from outrider.host.peers.drops import EVERY_S, Drops


def test_each_reason_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    drops = Drops()
    for moment in (0.0, 1.0, EVERY_S - 0.1, EVERY_S):
        drops.add("key", "from 10.0.0.9", moment)
    drops.add("replay", "from 10.0.0.9", 1.0)
    assert (drops.counts["key"], drops.counts["replay"], drops.counts["echo"]) == (4, 1, 0)
    assert [record.getMessage().rpartition("; ")[2] for record in caplog.records] == [
        "1 so far",
        "4 so far",
        "1 so far",
    ]
