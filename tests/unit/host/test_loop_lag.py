"""When the shim knows that it was late itself."""

from __future__ import annotations

import pytest

from outrider.host.loop_lag import LoopLag


class Loop:
    def call_later(self, *_: object) -> None:
        """Ticks are made by the test."""


async def test_a_late_tick_is_remembered_for_what_was_asked_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10.0
    monkeypatch.setattr("outrider.host.loop_lag.asyncio.get_running_loop", Loop)
    lag = LoopLag(lambda: now)
    assert not lag.late_since(0.0), "it does not tick yet"
    lag.tick()
    for now in (10.06, 10.14, 10.2):  # noqa: B007 (it is the clock) 10, 30 and 10 ms late
        lag.tick()
    assert not lag.late_since(0.0)
    now = 10.5
    assert lag.late_since(10.49), "it is late now"
    lag.tick()
    now = 10.55
    lag.tick()
    assert lag.late_since(10.3)
    assert lag.late_since(10.5)
    assert not lag.late_since(10.51)
    assert round(lag.worst_s, 3) == 0.25
