"""Retries are a share of calls, with a little for who is called seldom."""

from outrider.calls.budget import MOST, RetryBudget


def drained(budget: RetryBudget, now: float) -> int:
    count = 0
    while budget.take(now) and count < 10_000:
        count += 1
    return count


def test_a_tenth_of_the_calls_may_be_repeated() -> None:
    budget = RetryBudget(0.1, 0.0)
    assert drained(budget, 0.0) == 10
    for _ in range(200):
        budget.called()
    assert drained(budget, 0.0) in (19, 20)  # as binary fractions add up


def test_one_a_second_is_there_for_who_is_called_seldom() -> None:
    budget = RetryBudget(0.1, 0.0)
    drained(budget, 0.0)
    assert not budget.take(0.5)
    assert budget.take(1.6)


def test_it_does_not_save_up_for_ever() -> None:
    budget = RetryBudget(0.5, 0.0)
    for _ in range(10_000):
        budget.called()
    assert drained(budget, 1e6) <= MOST + 1


def test_zero_is_never_and_none_is_always() -> None:
    never = RetryBudget(0.0, 0.0)
    drained(never, 0.0)
    assert not never.take(1e6)
    assert drained(RetryBudget(None, 0.0), 0.0) == 10_000
