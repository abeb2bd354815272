"""The old instance as a yardstick of its machine: whether calls are slow for the new one alone, or for all. Pure.

The old one is asked for its counts all along. While it is slow to answer that, which is next to no work, calls of the
new one that are slow as well say nothing of it. They are not well for that either: they are missing.
"""

from __future__ import annotations

from bisect import bisect_left
from math import ceil
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from outrider.calls.tally import BOUNDS
from outrider.migration.staged.evidence import NOBODY, SLOW, added, since, slow_from
from outrider.migration.staged.sight import Counts

ENOUGH = 5  # answers before one is called unusual
TWICE = 2.0  # the median: of a few answers the slowest says little
MOST = 100  # of them that are kept
Mode = Literal["usual", "rest", "judge"]


class Beside(Struct, frozen=True):
    """What was seen up to the last look.

    usual: seconds that the old one took to answer before anything was judged
    seen: what the new one had counted; slow: whether the old one was slow to answer
    aside: calls of the new one between looks of which either found the old one slow
    worst: of the other looks, the calls of the one with the most that were slow
    """

    usual: tuple[float, ...] = ()
    seen: Counts | None = None
    slow: bool = False
    aside: Counts = NOBODY
    worst: Counts = NOBODY


def looked(before: Beside, mode: Mode, took_s: float | None, now: Counts | None, baseline: Counts | None) -> Beside:
    """One more look. `took_s`: of the old one to answer; None if it is not there or not well, and is no yardstick."""
    if mode == "usual":
        told = () if took_s is None else (took_s,)
        return Beside(usual=(*before.usual, *told)[-MOST:])
    if mode == "rest" or now is None:
        return Beside(usual=before.usual)
    limit = slow_from(baseline.buckets) if baseline and baseline.buckets else len(BOUNDS)
    slow = took_s is not None and _is_slow(took_s, before.usual, limit)
    after = replace(before, seen=now, slow=slow)
    if before.seen is None:
        return after
    calls = since(before.seen, now)
    if slow or before.slow:
        return replace(after, aside=added(before.aside, calls))
    worse = sum(calls.buckets[limit:]) > sum(before.worst.buckets[limit:])
    return replace(after, worst=calls if worse else before.worst)


def _is_slow(took_s: float, usual: tuple[float, ...], limit: int) -> bool:
    """By what is slow for a call, or, as that may be much more work, by what it usually took for this."""
    if bisect_left(BOUNDS, took_s) >= limit:
        return True
    told = sorted(usual)
    return len(told) >= ENOUGH and took_s > max(TWICE * told[len(told) // 2], told[ceil(SLOW * len(told)) - 1])
