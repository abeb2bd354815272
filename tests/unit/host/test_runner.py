"""When an instance that ended is started again."""

from __future__ import annotations

import pytest

from outrider.fleet.spec import Restart
from outrider.host.crash_loop import backoff_s, restarts_after
from outrider.host.supervisor import Exit


@pytest.mark.parametrize(("failures", "wait_s"), [(0, 0), (1, 0), (2, 0.5), (3, 1), (4, 2), (9, 30), (10_000, 30)])
def test_the_first_restart_is_at_once_and_the_wait_then_doubles_up_to_its_limit(failures: int, wait_s: float) -> None:
    assert backoff_s(Restart(), failures) == wait_s


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("always", 0, True),
        ("always", 1, True),
        ("on-failure", 0, False),
        ("on-failure", 3, True),
        ("on-failure", None, True),
        ("never", 1, False),
    ],
)
def test_the_policy_decides_by_exit_status(policy: str, code: int | None, again: bool) -> None:
    ended = Exit(code=code, signal=None if code is not None else 9, reason="ended")
    assert restarts_after(Restart(policy=policy), ended) is again
