"""When a circuit opens, who is let through half open, and what closes it. Time is given, never read."""

from __future__ import annotations

import random
from typing import Any

import pybreaker
import pytest

from outrider.calls.breaker import Breaker, Outcome
from outrider.calls.settings import Settings

SETTINGS = Settings()
FAR = 1e9


def breaker(settings: Settings = SETTINGS, *listeners: pybreaker.CircuitBreakerListener) -> Breaker:
    return Breaker("Echo-1", settings, random.Random(1), listeners)


def call(circuit: Breaker, now: float, outcome: Outcome, *, repeatable: bool = True) -> bool:
    """One call from permit to outcome; whether it was let through."""
    permit = circuit.acquire(now, FAR, repeatable)
    if permit:
        circuit.record(permit, now, outcome)
    return bool(permit)


def opened(now: float = 0.0, settings: Settings = SETTINGS) -> Breaker:
    circuit = breaker(settings)
    call(circuit, now, "lost")
    return circuit


def test_it_is_pybreakers_and_its_listeners_hear_of_everything() -> None:
    heard: list[Any] = []

    class Listener(pybreaker.CircuitBreakerListener):
        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            heard.append((old_state.name, new_state.name))

        def failure(self, cb: Any, exc: BaseException) -> None:
            heard.append("failure")

        def success(self, cb: Any) -> None:
            heard.append("success")

    circuit = breaker(SETTINGS, Listener())
    assert isinstance(circuit, pybreaker.CircuitBreaker)
    call(circuit, 0.0, "ok")
    call(circuit, 0.0, "failed")
    assert circuit.fail_counter == 1
    call(circuit, 0.0, "lost")
    circuit.half_open()
    call(circuit, 1.0, "ok")
    call(circuit, 1.0, "ok")
    assert heard == ["success", "failure", "failure", ("closed", "open"), ("open", "half-open"), "success", "success",
                     ("half-open", "closed")]  # fmt: skip


def test_a_lost_connection_opens_it_at_once() -> None:
    circuit = opened()
    assert (circuit.current_state, circuit.reason) == ("open", "connection lost")
    assert not call(circuit, 0.0, "ok")


def test_failures_in_a_row_open_it_however_few_calls_there_are() -> None:
    circuit = breaker()
    for minute in range(SETTINGS.consecutive - 1):
        call(circuit, minute * 60.0, "failed")
    assert circuit.is_closed
    call(circuit, 600.0, "failed")
    assert (circuit.is_closed, circuit.reason) == (False, "5 failures in a row")


@pytest.mark.parametrize(("bad", "reason"), [("failed", "calls failed"), ("slow", "calls were slow")])
def test_a_rate_opens_it_once_there_are_enough_calls(bad: Outcome, reason: str) -> None:
    outcomes: list[Outcome] = ["ok", bad] if bad == "failed" else [bad] * 4 + ["ok"]
    circuit, count = breaker(), 0
    while circuit.is_closed and count < 100:
        call(circuit, 0.01 * count, outcomes[count % len(outcomes)])
        count += 1
    assert count >= SETTINGS.minimum_calls
    assert count < 20
    assert reason in circuit.reason


def test_a_rate_below_the_bound_does_not() -> None:
    circuit = breaker()
    for count in range(1000):
        call(circuit, 0.01 * count, "failed" if count % 3 == 0 else "ok")
    assert circuit.is_closed


def test_what_says_nothing_counts_nothing() -> None:
    circuit = breaker()
    for _ in range(100):
        call(circuit, 0.0, "none")
    assert circuit.is_closed


def test_an_open_circuit_lets_nobody_through_until_a_probe_was_answered() -> None:
    circuit = opened()
    assert not call(circuit, 1000.0, "ok")
    circuit.half_open()
    assert call(circuit, 1000.0, "ok")


def test_half_open_lets_a_bounded_number_through() -> None:
    circuit = opened()
    circuit.half_open()
    permits = [circuit.acquire(1.0, 2.0, True) for _ in range(5)]
    assert [bool(permit) for permit in permits] == [True, True, False, False, False]
    circuit.record(permits[0], 1.0, "none")
    assert circuit.acquire(1.0, 2.0, True)


def test_a_permit_that_never_comes_back_lapses() -> None:
    circuit = opened()
    circuit.half_open()
    assert circuit.acquire(1.0, 2.0, True)
    assert circuit.acquire(1.0, 2.0, True)
    assert not circuit.acquire(1.9, 3.0, True)
    assert circuit.acquire(2.1, 3.0, True)


def test_trials_close_it_and_one_that_fails_opens_it_again() -> None:
    circuit = opened()
    circuit.half_open()
    assert call(circuit, 1.0, "ok")
    assert circuit.current_state == "half-open"
    assert call(circuit, 1.0, "failed")
    assert (circuit.current_state, circuit.reason) == ("open", "a trial was failed")
    circuit.half_open()
    assert call(circuit, 2.0, "ok")
    assert call(circuit, 2.0, "ok")
    assert circuit.is_closed


def test_a_slow_trial_does_not_close_it() -> None:
    circuit = opened()
    circuit.half_open()
    call(circuit, 1.0, "slow")
    assert circuit.current_state == "open"


def test_what_began_before_the_last_change_says_nothing() -> None:
    """resilience4j#1432 and the like: late answers were taken for trials."""
    circuit = breaker()
    early = [circuit.acquire(0.0, FAR, True) for _ in range(4)]
    call(circuit, 0.0, "lost")
    circuit.half_open()
    for permit in early:
        circuit.record(permit, 1.0, "ok")
    assert circuit.current_state == "half-open"
    circuit.record(early[0], 1.0, "failed")
    assert circuit.current_state == "half-open"


def test_calls_that_cannot_be_repeated_wait_for_a_longer_back_off() -> None:
    circuit = breaker(Settings(open_s=1.0, quick_open_s=0.5, max_open_s=30.0))
    now = 0.0
    call(circuit, now, "lost")
    for _ in range(4):
        circuit.half_open()
        now += 1.0
        call(circuit, now, "failed")
    circuit.half_open()
    assert not call(circuit, now + 5.0, "ok", repeatable=False)
    assert call(circuit, now + 5.0, "none", repeatable=True)
    assert call(circuit, now + 40.0, "ok", repeatable=False)


def test_the_back_off_grows_with_jitter_and_has_a_bound() -> None:
    circuit, waits = opened(), []
    for _ in range(12):
        waits.append(circuit.open_for_s)
        circuit.put_off(0.0)
    assert waits[0] < 0.13
    assert waits[1] > waits[0]
    assert len(set(waits)) == 12
    assert max(waits) <= SETTINGS.quick_open_s * 1.25
    circuit.half_open()
    circuit.close()
    call(circuit, 0.0, "lost")
    assert circuit.open_for_s < 0.13


def test_closing_forgets_what_was_counted() -> None:
    circuit = breaker()
    for _ in range(4):
        call(circuit, 0.0, "failed")
    circuit.close()
    for _ in range(4):
        call(circuit, 0.1, "failed")
    assert circuit.is_closed
