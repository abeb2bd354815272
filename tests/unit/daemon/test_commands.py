"""Start, stop and restart as changes of a placement."""

from __future__ import annotations

import pytest

from outrider.daemon.commands import changed, restartable
from outrider.errors import OutriderError
from outrider.registry.layout import Placed

PLACED = Placed("Echo-1", "pc1", "v1", generation=3)
STOPPED = Placed("Echo-1", "pc1", "v1", state="stopped", generation=3)


def test_stop_and_start_undo_each_other() -> None:
    assert changed(PLACED, "stop") == STOPPED
    assert changed(STOPPED, "start") == PLACED
    assert changed(PLACED, "start") == PLACED


def test_a_restart_asks_for_another_process_and_starts_what_was_stopped() -> None:
    again = Placed("Echo-1", "pc1", "v1", generation=4)
    assert changed(PLACED, "restart") == changed(STOPPED, "restart") == again


def test_an_unknown_action_is_refused_with_those_that_exist() -> None:
    with pytest.raises(OutriderError) as refused:
        restartable("reload")
    assert "reload" in refused.value.message
    assert "start, stop, restart" in refused.value.hint
