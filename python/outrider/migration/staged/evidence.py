"""From counts of calls to the signals that are judged. Pure."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import msgspec

from outrider.calls.tally import BOUNDS
from outrider.migration.judge import Signal, Verdict, tolerated
from outrider.migration.staged.sight import Counts

FEW = 50  # calls of a baseline that says nothing yet
P0_UNKNOWN = 0.10  # tolerated where there is no baseline
P0_PROBES = 0.05
OVER = 1.10  # of the GPU memory that is declared: a context and its libraries are in nobody's sum
NOBODY = Counts()
SLOW = 0.95  # a call is slow if it took longer than this share of the baseline's


def signals(
    baseline: Counts | None,
    now: Counts | None,
    probes: tuple[int, int],
    errors_since: Counts | None = NOBODY,
    slow_since: Counts | None = NOBODY,
    vram: tuple[int, int] = (0, 0),
    aside: Counts = NOBODY,
) -> tuple[Signal, ...]:
    """Errors and slow calls of an instance that counts its calls; else whether it passed whenever it was looked at.

    errors_since, slow_since: of calls that were counted then nothing is said; None: those that count have yet to come
    aside: calls counted later of which nothing is said either of slow ones: they are missing
    vram: how often it used too much GPU memory, of how many times; never where that is not measured
    """
    bad, n = vram
    of_memory = (Signal("vram", bad, n, P0_PROBES),) if n else ()
    return (*_of_calls(baseline, now, probes, errors_since, slow_since, aside), *of_memory)


def of_gpu(before: tuple[int, int], used_mib: int | None, declared_mib: int | None) -> tuple[int, int]:
    """One more look at whether it uses more GPU memory than placement counts with; none where one is not known."""
    bad, n = before
    return before if used_mib is None or not declared_mib else (bad + (used_mib > OVER * declared_mib), n + 1)


def _of_calls(
    baseline: Counts | None,
    now: Counts | None,
    probes: tuple[int, int],
    errors_since: Counts | None,
    slow_since: Counts | None,
    aside: Counts,
) -> tuple[Signal, ...]:
    bad, n = probes
    few = Signal("probes", bad, n, P0_PROBES)
    if now is None:
        return (few,)
    known = baseline if baseline and baseline.calls >= FEW else None
    calls = since(errors_since, now)
    # Callers soon leave one alone that fails: that it was not called since does not make up for how it did before.
    earlier = [_errors("errors since its start", known, now)] if now.failed > calls.failed else []
    if calls.calls < FEW and not calls.failed:
        return (few, *earlier)  # it is called too seldom to be judged by its calls
    found = [_errors("errors", known, calls), *earlier]
    if known and sum(known.buckets) >= FEW and now.buckets:
        limit = slow_from(known.buckets)
        before, n = sum(known.buckets[limit:]), sum(known.buckets)
        judged = since(aside, since(slow_since, now)).buckets
        missing = sum(aside.buckets)
        found.append(Signal("slow calls", sum(judged[limit:]), sum(judged), tolerated(before, n), missing))
    return tuple(found)


def _errors(name: str, known: Counts | None, calls: Counts) -> Signal:
    """Failed calls beside those of the baseline."""
    p0 = tolerated(known.failed, known.calls) if known else P0_UNKNOWN
    # With nothing to compare it with it may be found bad, but not good: as if most of its samples were missing.
    missing = 0 if known else calls.calls + 1
    return Signal(name, min(calls.failed, calls.calls), calls.calls, p0, missing)


def since(then: Counts | None, now: Counts) -> Counts:
    """What was added; all that there is after a restart."""
    if then is None:
        return NOBODY
    if then.calls > now.calls or then == NOBODY:
        return now
    buckets = tuple(later - earlier for later, earlier in zip(now.buckets, then.buckets, strict=False))
    return Counts(now.calls - then.calls, max(0, now.failed - then.failed), buckets)


def added(one: Counts, other: Counts) -> Counts:
    """Both together."""
    pairs = zip_longest(one.buckets, other.buckets, fillvalue=0)
    return Counts(one.calls + other.calls, one.failed + other.failed, tuple(map(sum, pairs)))


def slow_from(buckets: tuple[int, ...]) -> int:
    """The first bucket of slow calls: below it are the share SLOW of the baseline's."""
    total, reached = sum(buckets), 0
    for index, count in enumerate(buckets):
        reached += count
        if reached >= SLOW * total:
            return min(index + 1, len(BOUNDS))
    return len(BOUNDS)


def kept(verdict: Verdict) -> dict[str, Any]:
    """A verdict as the journal keeps it: from its counts it can be computed again."""
    found = [finding.signal for finding in verdict.findings]
    return {"verdict": verdict.word, "signals": [msgspec.to_builtins(signal) for signal in found]}


def baseline_of(evidence: dict[str, Any]) -> Counts | None:
    """The baseline that a step noted as it began."""
    raw = evidence.get("baseline")
    return msgspec.convert(raw, Counts) if raw else None
