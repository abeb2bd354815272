"""Back-off and the bucket of tokens."""

from __future__ import annotations

import random

import pytest

from outrider.registry.pace import BACKOFF_MAX_S, Bucket, backoff_s


def test_back_off_grows_to_its_cap_and_spreads_hosts_apart() -> None:
    rng = random.Random(7)
    tries = {failures: [backoff_s(failures, rng) for _ in range(200)] for failures in (1, 3, 6, 50, 10_000)}
    assert max(tries[1]) <= 0.2
    assert max(tries[1]) < max(tries[3]) < max(tries[6])
    assert all(0 <= wait <= BACKOFF_MAX_S for waits in tries.values() for wait in waits)
    # Full jitter: from nothing to the cap, not around it.
    assert min(tries[50]) < 0.2
    assert max(tries[50]) > 4.5


def test_a_burst_passes_at_once_and_what_follows_is_paced() -> None:
    bucket = Bucket(rate_per_s=10, burst=3)
    assert [bucket.take(100.0) for _ in range(5)] == pytest.approx([0, 0, 0, 0.1, 0.2])


def test_the_bucket_fills_again_but_not_beyond_its_burst() -> None:
    bucket = Bucket(rate_per_s=10, burst=3)
    for _ in range(3):
        bucket.take(100.0)
    assert bucket.take(100.1) == pytest.approx(0)
    assert [bucket.take(10_000.0) for _ in range(4)] == pytest.approx([0, 0, 0, 0.1])


def test_the_rate_holds_for_one_who_waits_as_told() -> None:
    bucket, now = Bucket(rate_per_s=20, burst=5), 50.0
    for _ in range(105):
        now += bucket.take(now)
    assert now - 50.0 == pytest.approx(100 / 20)
