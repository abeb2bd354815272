"""Counts of the calls to one method of one agent, since the process began. Pure."""

from __future__ import annotations

from bisect import bisect_left

# Seconds. Between a call on the same host and one to a large model; Prometheus' buckets of this histogram.
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
MOST_METHODS = 50  # of one agent that are counted by name
OTHER = "other"  # the methods beyond, callers that no shim started, and names that no agent has


class Tally:
    """`outcomes`: calls by how they ended, ok or an error's kind; `buckets`: of the answered ones by duration."""

    __slots__ = ("buckets", "outcomes", "retries", "seconds")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.retries = 0

    def add(self, outcome: str, took_s: float) -> None:
        """One call is over."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.buckets[bisect_left(BOUNDS, took_s)] += 1
        self.seconds += took_s
