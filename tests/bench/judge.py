"""How often a migration that is fine is rolled back, and how soon one that is not: our judge beside two usual rules.

Simulated traffic, judged ten times a second for half a minute. Usual rules: three seconds in a row over a fixed limit,
as canary controllers do it, and Mann and Whitney's test of the seconds so far against as many of before, looked at
each second. Ours looks at the same samples through `outrider.migration.judge`, with limits from what was before.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from harness import Row, row, write
from judge_plots import draw
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from outrider.migration.judge import Signal, judge, tolerated

Floats = NDArray[np.float64]
RATE = 100  # calls per second
SECONDS = 30
LOOKS = 10  # per second
BASELINE = 10_000  # calls before
ERRORS = 0.005
SIGMA = 0.4  # of the logarithm of a latency
LATE = 0.05  # of the baseline is slower than what counts as slow
USUAL_ERRORS = 2 * ERRORS
USUAL_LATENCY = 1.25
DOUBT = 0.01
FEWEST_POINTS = 5


class Traffic:
    """One run: for each look the calls, those that failed and those that were slow; and the latencies by second."""

    def __init__(self, rng: np.random.Generator, errors: float, slower: float, burst: float) -> None:
        looks, calls = SECONDS * LOOKS, RATE // LOOKS
        share = np.full(looks, errors)
        if burst:  # errors come in clusters: the share of a look varies by this coefficient
            share = np.minimum(errors * rng.gamma(1 / burst**2, burst**2, looks), 1.0)
        self.failed = rng.binomial(calls, share)
        self.latencies: Floats = slower * rng.lognormal(0.0, SIGMA, (looks, calls))
        self.calls = np.full(looks, calls)


class Before:
    """What was measured before the migration."""

    def __init__(self, rng: np.random.Generator, burst: float) -> None:
        share = np.full(BASELINE // 10, ERRORS)
        if burst:
            share = np.minimum(ERRORS * rng.gamma(1 / burst**2, burst**2, len(share)), 1.0)
        failed = rng.binomial(10, share)
        latencies = rng.lognormal(0.0, SIGMA, BASELINE)
        self.slow = float(np.quantile(latencies, 1 - LATE))
        self.errors = tolerated(int(failed.sum()), BASELINE)
        self.late = tolerated(int((latencies > self.slow).sum()), BASELINE, tolerance=1.5)
        self.failed_by_s = failed[: SECONDS * LOOKS].reshape(SECONDS, LOOKS).sum(axis=1)
        self.latency_by_s = np.quantile(latencies[: SECONDS * RATE].reshape(SECONDS, RATE), 0.95, axis=1)


Rule = Callable[[Traffic, Before], float]
"""Seconds until it rolls back; infinity if it never does."""


def ours(traffic: Traffic, before: Before) -> float:
    """Errors and latency together."""
    failed, calls = np.cumsum(traffic.failed), np.cumsum(traffic.calls)
    late = np.cumsum((traffic.latencies > before.slow).sum(axis=1))
    for look in range(len(calls)):
        n = int(calls[look])
        signals = (
            Signal("errors", int(failed[look]), n, before.errors),
            Signal("slow", int(late[look]), n, before.late),
        )
        if judge(signals, over=False).word == "rollback":
            return (look + 1) / LOOKS
    return float("inf")


def by_second(traffic: Traffic) -> tuple[NDArray[np.int64], Floats]:
    """Failed calls, and the 95th percentile of latency."""
    latencies = traffic.latencies.reshape(SECONDS, RATE)
    return traffic.failed.reshape(SECONDS, LOOKS).sum(axis=1), np.quantile(latencies, 0.95, axis=1)


def in_a_row(traffic: Traffic, before: Before) -> float:
    """Three seconds over the limit."""
    failed, latency = by_second(traffic)
    over = (failed / RATE > USUAL_ERRORS) | (latency > USUAL_LATENCY * before.slow)
    for second in range(2, SECONDS):
        if over[second - 2 : second + 1].all():
            return second + 1.0
    return float("inf")


def mann_whitney(traffic: Traffic, before: Before) -> float:
    """Either series is greater than before."""
    failed, latency = by_second(traffic)
    for second in range(FEWEST_POINTS, SECONDS + 1):
        for now, then in ((failed, before.failed_by_s), (latency, before.latency_by_s)):
            if mannwhitneyu(now[:second], then[:second], alternative="greater").pvalue < DOUBT:
                return float(second)
    return float("inf")


RULES: dict[str, Rule] = {"outrider": ours, "three in a row": in_a_row, "mann-whitney": mann_whitney}


def runs(count: int, seed: int, errors: float, slower: float, burst: float) -> Iterator[tuple[Traffic, Before]]:
    """Each with a baseline of its own. The same for every rule."""
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        before = Before(rng, burst)
        yield Traffic(rng, errors, slower, burst), before


def share_row(case: str, system: str, found: Sequence[bool]) -> Row:
    """One figure in every column: a share has no quantiles."""
    share = round(sum(found) / len(found), 4)
    return Row(case, system, "ratio", len(found), share, share, share, share)


def measure(count: int, seed: int) -> list[Row]:
    """All rows. A run that is not rolled back within its half minute counts as that, and its share has a row."""
    rows = []
    for burst, name in ((0.0, "steady"), (1.0, "bursty (CV 1)"), (2.0, "very bursty (CV 2)")):
        for system, rule in RULES.items():
            wrong = [rule(*run) < float("inf") for run in runs(count, seed, ERRORS, 1.0, burst)]
            rows.append(share_row(f"false rollback, {name}", system, wrong))
    bad = [(f"{errors:.0%} errors", errors, 1.0) for errors in (0.02, 0.05, 0.2, 0.9)]
    bad += [(f"latency x{slower:g}", ERRORS, slower) for slower in (1.25, 1.5, 2.0)]
    for name, errors, slower in bad:
        for system, rule in RULES.items():
            took = [rule(*run) for run in runs(max(count // 5, 20), seed + 1, errors, slower, 0.0)]
            rows.append(row(f"seconds to rollback, {name}", system, "s", [min(one, float(SECONDS)) for one in took]))
            rows.append(share_row(f"not rolled back, {name}", system, [one == float("inf") for one in took]))
    return rows


def main() -> None:
    """`python tests/bench/judge.py [--runs N] [--seed N]`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="healthy migrations in each row; a fifth of it bad ones")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = measure(arguments.runs, arguments.seed)
    write("judge", rows)
    draw(rows, SECONDS)


if __name__ == "__main__":
    main()
