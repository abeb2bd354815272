"""When an instance that ended is started again, when it is parked, and what is said of it."""

from __future__ import annotations

import pytest

from outrider.fleet.spec import Restart
from outrider.host.crash_loop import CrashLoop, backoff_s, restarts_after
from outrider.host.supervisor import Exit

ENDED = Exit(code=3, reason="exit status 3")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_is_parked_after_so_many_failures_in_a_row() -> None:
    clock = Clock()
    crashes = CrashLoop(clock)
    for _ in range(9):
        crashes.failed(started=True, steady=False)
        assert crashes.reason_to_park("Echo", Restart(), ENDED) == ""
        clock.now += 10.0
    crashes.failed(started=True, steady=False)
    assert crashes.reason_to_park("Echo", Restart(), ENDED) == (
        "parked: failed 10 times in a row within 90 s, last: exit status 3; "
        "`outrider restart Echo` or a new version revives it"
    )
    assert crashes.reason_to_park("Echo", Restart(park_after=0), ENDED) == ""


def test_being_steady_in_between_begins_the_count_anew() -> None:
    crashes = CrashLoop()
    for steady in (False, False, True, False):
        crashes.failed(started=True, steady=steady)
    assert crashes.failures == 2
    assert crashes.reason_to_park("Echo", Restart(park_after=3), ENDED) == ""


def test_what_the_host_does_not_let_start_waits_and_is_never_parked() -> None:
    crashes = CrashLoop()
    for _ in range(50):
        crashes.failed(started=False, steady=False)
    assert crashes.failures == 50
    assert crashes.reason_to_park("Echo", Restart(), ENDED) == ""


def test_a_policy_that_does_not_restart_parks_at_once() -> None:
    crashes = CrashLoop()
    crashes.failed(started=True, steady=True)
    said = crashes.reason_to_park("Echo", Restart(policy="never"), ENDED)
    assert said.startswith("parked: exit status 3; its restart policy is never; ")


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
