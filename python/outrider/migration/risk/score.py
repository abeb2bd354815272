"""Points, floors and the band of a migration. Pure: the facts come in, with the evidence for each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from outrider.migration.risk.factors import AGGRAVATORS, BY_KEY, REHEARSED

WEIGHTS = 1  # version of the factors' points; a change makes scores incomparable

# Failures that a fitted probability needs before it is worth printing (Hanley and McNeil, "The Meaning and Use of the
# Area under a ROC Curve", 1982: with 10 its standard error is 0.09, with 30 it is 0.05).
KNOWN_FROM = 30

Name = Literal["low", "moderate", "high", "critical", "no-go"]


class Band(Struct, frozen=True):
    """What follows from the points.

    least: points from which it applies; verify_s: seconds that the new one is judged after the cutover
    backup: levels of backup before anything is touched; approvals: people who must agree
    """

    name: Name
    least: int
    strategy: str
    verify_s: int
    backup: tuple[str, ...]
    approvals: int
    undecided: Literal["hold", "rollback"] = "hold"
    rehearsal: bool = False


BANDS = (
    Band("low", 0, "direct", 30, ("configuration",), 0),
    Band("moderate", 7, "canary", 120, ("configuration", "kv"), 0),
    Band("high", 14, "staged", 900, ("configuration", "kv", "state"), 1),
    Band("critical", 26, "staged", 86400, ("configuration", "kv", "state", "snapshot"), 2, "rollback", rehearsal=True),
    Band("no-go", 36, "refused", 0, (), 0),
)


class Measure(Struct, frozen=True):
    """One fact. `value`: None when it could not be measured; `evidence`: where it is from, or why it could not be.

    said: the value in words, where the factor's own would not be true of it
    """

    value: float | None
    evidence: str
    said: str = ""


class Contribution(Struct, frozen=True):
    """Points, and what they are for. `measured`: False when the worst was taken for want of a fact."""

    key: str
    name: str
    points: int
    most: int
    said: str
    evidence: str
    measured: bool


class Assessment(Struct, frozen=True):
    """The score of one migration. `floor`: why the band is higher than its points, or empty; `stop`: why never."""

    likelihood: int
    impact: int
    extra: int
    band: Band
    contributions: tuple[Contribution, ...]
    floor: str = ""
    stop: str = ""
    weights: int = WEIGHTS

    @property
    def points(self) -> int:
        """All of them."""
        return max(0, self.likelihood + self.impact + self.extra)


def score(
    measures: Mapping[str, Measure], aggravating: Mapping[str, Measure], *, rehearsed: bool = False, stop: str = ""
) -> Assessment:
    """Add up. A factor that is absent, or has no value, takes the worst one, and says so.

    `aggravating`: key of an aggravator to 1 (it is so) or 0; `stop`: what forbids the migration whatever the points.
    """
    unknown = (set(measures) - set(BY_KEY)) | (set(aggravating) - {each.key for each in AGGRAVATORS})
    if unknown:
        raise ValueError(f"no such factor: {', '.join(sorted(unknown))}")
    factors = [_factor(key, measures.get(key)) for key in BY_KEY]
    extra = [_aggravator(each.key, each.name, each.points, aggravating.get(each.key)) for each in AGGRAVATORS]
    if rehearsed:
        extra.append(Contribution("R", "rehearsed", REHEARSED, 0, "this very plan, within a day", "", measured=True))
    likelihood, impact = (sum(c.points for c in factors if BY_KEY[c.key].side == side) for side in _SIDES)
    more = sum(c.points for c in extra)
    band, floor = _band(max(0, likelihood + impact + more), {c.key: c.points for c in (*factors, *extra)}, stop)
    return Assessment(likelihood, impact, more, band, (*factors, *extra), floor, stop)


_SIDES = ("likelihood", "impact")


def _factor(key: str, measure: Measure | None) -> Contribution:
    factor = BY_KEY[key]
    if measure is None or measure.value is None or math.isnan(measure.value):
        evidence = measure.evidence if measure else "nobody asked"
        return Contribution(key, factor.name, factor.most, factor.most, "not known", evidence, measured=False)
    points = factor.points(measure.value)
    said = measure.said or factor.written(measure.value)
    return Contribution(key, factor.name, points, factor.most, said, measure.evidence, measured=True)


def _aggravator(key: str, name: str, points: int, measure: Measure | None) -> Contribution:
    if measure is None or measure.value is None:
        evidence = measure.evidence if measure else "nobody asked"
        return Contribution(key, name, points, points, "not known", evidence, measured=False)
    so = bool(measure.value)
    return Contribution(key, name, points * so, points, "yes" if so else "no", measure.evidence, measured=True)


def _band(points: int, by_key: Mapping[str, int], stop: str) -> tuple[Band, str]:
    """Severity first: state that has one writer is never moved lightly, however small the change."""
    by_name = {band.name: band for band in BANDS}
    reached = max((band for band in BANDS if points >= band.least), key=lambda band: band.least)
    floors = [
        (by_name["high"], "its state has a single writer", by_key["I1"] >= 3),
        (by_name["critical"], "there is no way back to the old files", by_key["A6"] > 0),
        (by_name["no-go"], stop, bool(stop)),
    ]
    band, why = reached, ""
    for floor, reason, applies in floors:
        if applies and floor.least > band.least:
            band, why = floor, reason
    return band, why


def smoothed_rate(failed: int, all_of_them: int) -> float:
    """The expected share of failures after these, from a Beta(1, 9) prior: one in ten, until history says otherwise."""
    return (failed + 1) / (all_of_them + 10)


def probability(failed: int, all_of_them: int) -> str:
    """The probability of failure in words, for people."""
    if failed < KNOWN_FROM:
        return f"not yet known ({failed} of {all_of_them} migrations failed; it takes {KNOWN_FROM} failures to tell)"
    return f"{smoothed_rate(failed, all_of_them):.1%}"
