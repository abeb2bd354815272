"""Is the new one worse? Every signal is a series of good and bad samples, and one test reads them all.

The evidence against "not more than `p0` of the samples are bad" is a mixture of likelihood ratios over shares worse
than that. While it is true that is a martingale, or falls, so it ever reaches 1/alpha with a chance of alpha at most
(Ville, 1939), however often one looks. The same with the sides changed says early that all is well. See Robbins,
"Statistical Methods Related to the Law of the Iterated Logarithm" (1970), and Howard et al., "Time-uniform,
nonparametric, nonasymptotic confidence sequences" (2021). Its state is two counts, so that a verdict can be computed
again from what was kept of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from typing import Literal

from msgspec import Struct, field

ALPHA = 1e-3  # that all that is well is rolled back, of one migration and all its signals together
BETA = 1e-2  # that one signal that is worse by the factor WORSE is found well early
TOLERANCE = 2.0  # times the baseline: below that, bursts of errors that every service has would roll back
WORSE = 3.0  # times what is tolerated: what an early go must rule out
FLOOR = 0.002  # a baseline without a bad sample does not make the first one a catastrophe
POINTS = 32
MOST = 0.98  # shares of bad samples that are weighed reach up to here

Word = Literal["rollback", "go", "continue", "inconclusive"]


class Signal(Struct, frozen=True):
    """One series since the new instance began to serve.

    bad, n: of `n` samples, so many were bad; missing: samples that should be there and are not, or are no numbers
    p0: the share of bad samples that is tolerated
    weight: its share of ALPHA, relative to those of the others
    """

    name: str
    bad: int
    n: int
    p0: float
    missing: int = 0
    weight: float = 1.0


class Finding(Struct, frozen=True):
    """One signal, judged. `worse` and `fine`: evidence, as factors; `detectable`: the smallest share it could show."""

    signal: Signal
    word: Word
    worse: float
    fine: float
    detectable: float


class Verdict(Struct, frozen=True):
    """`word` for all signals together, in words in `said`."""

    word: Word
    said: str
    findings: tuple[Finding, ...] = field(default_factory=tuple)


def judge(signals: Sequence[Signal], *, over: bool, alpha: float = ALPHA, beta: float = BETA) -> Verdict:
    """What follows from all signals. `over`: there will be no more samples.

    One signal that is worse is enough to roll back; only when all are shown to be well is it a go. Without signals, or
    with one that has no samples or mostly missing ones, it never is. Raises ValueError for counts that cannot be.
    """
    total = sum(signal.weight for signal in signals)
    findings = tuple(_find(signal, alpha * signal.weight / total, beta) for signal in signals)
    words = [finding.word for finding in findings]
    word: Word
    if "rollback" in words:
        word = "rollback"
    elif words and all(each == "go" for each in words):
        word = "go"
    else:
        word = "inconclusive" if over else "continue"
    return Verdict(word, _said(word, findings), findings)


def _find(signal: Signal, alpha: float, beta: float) -> Finding:
    if not (0 <= signal.bad <= signal.n and signal.missing >= 0 and 0.0 < signal.p0 < 1.0 and signal.weight > 0.0):
        raise ValueError(f"{signal.name}: {signal} is no count of samples")
    worse = log_worse(signal.bad, signal.n, signal.p0)
    fine = log_fine(signal.bad, signal.n, excluded(signal.p0))
    word: Word = "continue"
    if worse >= -math.log(alpha):
        word = "rollback"
    elif fine >= -math.log(beta) and worse <= 0.0 and signal.missing <= signal.n:
        word = "go"
    return Finding(signal, word, _factor(worse), _factor(fine), detectable(signal.n, signal.p0, alpha))


def _factor(log: float) -> float:
    """As a number that JSON has."""
    return math.exp(min(log, 700.0))


def log_worse(bad: int, n: int, p0: float) -> float:
    """The logarithm of the evidence that more than `p0` are bad."""
    return _mixture(bad, n, p0, _above(p0))


def log_fine(bad: int, n: int, p1: float) -> float:
    """The logarithm of the evidence that fewer than `p1` are bad."""
    return _mixture(bad, n, p1, _below(p1))


def _mixture(bad: int, n: int, p0: float, points: Sequence[float]) -> float:
    logs = [bad * math.log(p / p0) + (n - bad) * math.log((1 - p) / (1 - p0)) for p in points]
    most = max(logs)
    return most + math.log(sum(math.exp(log - most) for log in logs) / len(logs))


@cache
def _above(p0: float) -> tuple[float, ...]:
    """Shares from just above `p0`, evenly spaced in their logarithms."""
    top = max(MOST, (1 + p0) / 2)
    return tuple(p0 * (top / p0) ** ((i + 1) / POINTS) for i in range(POINTS))


@cache
def _below(p1: float) -> tuple[float, ...]:
    return tuple(p1 * (1e-3 ** ((i + 1) / POINTS)) for i in range(POINTS))


def excluded(p0: float) -> float:
    """The share of bad samples that a go rules out."""
    return min(WORSE * p0, (1 + p0) / 2)


def detectable(n: int, p0: float, alpha: float) -> float:
    """The smallest share of bad samples that `n` samples would show as worse on average; 1 if none would.

    By the information that a sample carries: n times the Kullback-Leibler divergence must reach log(1/alpha).
    """
    needed = -math.log(alpha)
    if n * -math.log(p0) < needed:
        return 1.0
    return _root(lambda p: n * _divergence(p, p0) - needed, p0, 1.0)


def _divergence(p: float, q: float) -> float:
    good = (1 - p) * math.log((1 - p) / (1 - q)) if p < 1.0 else 0.0
    return p * math.log(p / q) + good


def tolerated(bad: int, n: int, *, tolerance: float = TOLERANCE, floor: float = FLOOR) -> float:
    """The share of bad samples to tolerate after a baseline of `bad` in `n`.

    From the upper 99 % bound of the baseline's own share (Clopper and Pearson, 1934), so that a short baseline
    tolerates more. Raises ValueError for a baseline without samples.
    """
    if not 0 <= bad <= n or n == 0:
        raise ValueError(f"{bad} bad of {n} samples is no baseline")
    return min(max(floor, tolerance * upper_bound(bad, n)), 0.5)


@lru_cache(maxsize=256)  # a driver asks for that of one baseline many times a second
def upper_bound(bad: int, n: int, doubt: float = 0.01) -> float:
    """Above this share, so few bad samples are seen with a probability below `doubt` only."""
    if bad == n:
        return 1.0
    return _root(lambda p: doubt - _at_most(bad, n, p), bad / n, 1.0)


def _at_most(bad: int, n: int, p: float) -> float:
    """The probability of at most `bad` in `n`."""
    if p <= 0.0 or p >= 1.0:
        return float(p <= 0.0)
    logs = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(bad + 1)
    )
    return math.fsum(math.exp(log) for log in logs)


def _root(rises: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that rises from below 0 crosses it, from above."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) >= 0.0 else (middle, high)
    return high


def beside(share: float, ratio: float = TOLERANCE) -> float:
    """`p0` for a canary beside the old ones: a sample is each bad call of both, and bad if it is the canary's.

    share: of all calls that the canary gets; ratio: of its rate of bad calls to that of the old ones that is tolerated.
    No baseline is needed, and what is bad for both alike does not count against it. Raises ValueError for a share that
    is none.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"a canary that gets {share:g} of the calls has nothing beside it")
    return ratio * share / (ratio * share + 1 - share)


def bits(values: Iterable[float | None], limit: float) -> tuple[int, int, int]:
    """Measurements as (bad, n, missing): bad is above the limit; missing is what is no number, or negative."""
    bad = n = missing = 0
    for value in values:
        if value is None or not math.isfinite(value) or value < 0.0:
            missing += 1
        else:
            n += 1
            bad += value > limit
    return bad, n, missing


def _said(word: Word, findings: Sequence[Finding]) -> str:
    if not findings:
        return f"{word}: nothing was measured"
    decisive = [finding for finding in findings if finding.word == word] or [f for f in findings if f.word != "go"]
    return f"{word}: " + "; ".join(_of(finding) for finding in decisive)


def _of(finding: Finding) -> str:
    signal = finding.signal
    seen = f"{signal.name} {signal.bad}/{signal.n} bad, {signal.p0:.2%} is tolerated, E={finding.worse:.3g}"
    lacking = f", {signal.missing} samples missing" if signal.missing else ""
    could = f"could have seen {finding.detectable:.2%}" if finding.detectable < 1.0 else "could not have seen anything"
    return f"{seen}{lacking}, {could}"
