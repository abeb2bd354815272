"""The 13 factors: what is measured, and the points for it. Likelihood adds up to 20, impact to 15.

Points are added, never multiplied: a product of ranks has no meaning (Wheeler, "Problems with Risk Priority Numbers",
2011). Size, diffusion and history are what predicts a failing change (Kamei et al., "A Large-Scale Empirical Study of
Just-in-Time Quality Assurance", 2013).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

Side = Literal["likelihood", "impact"]

STATES = ("none", "cache", "replicated", "single writer", "single writer, not rebuildable")


class Factor(Struct, frozen=True):
    """One factor.

    edges: the least value that gets 1 point, 2 points, ...; with `falling`, the most value that does
    written: the value in words, for people
    """

    key: str
    name: str
    side: Side
    edges: tuple[float, ...]
    written: Callable[[float], str]
    falling: bool = False

    @property
    def most(self) -> int:
        """The points of the worst value."""
        return len(self.edges)

    def points(self, value: float) -> int:
        """0 to `most`. What is no number gets the worst."""
        if math.isnan(value):
            return self.most
        if self.falling:
            return sum(value <= edge for edge in self.edges)
        return bisect_right(self.edges, value)


def counted(number: float, thing: str) -> str:
    """1 file, 2 files."""
    return f"{number:,.0f} {thing}" + ("" if number == 1 else "s")


def _count(thing: str) -> Callable[[float], str]:
    return lambda value: counted(value, thing)


def _share(value: float) -> str:
    return f"{value:.0%}"


def _days(value: float) -> str:
    if math.isinf(value):
        return "none on record"
    return f"{counted(value, 'day')} ago" if value >= 1 else "within a day"


def _lines(value: float) -> str:
    return "a new model or runtime" if math.isinf(value) else counted(value, "changed line")


FACTORS = (
    Factor("L1", "change size", "likelihood", (1, 51, 301, 1501), _lines),
    Factor("L2", "changed files", "likelihood", (2, 6), _count("file")),
    Factor("L3", "last incident", "likelihood", (90, 30, 7), _days, falling=True),
    Factor("L4", "failure rate", "likelihood", (0.05, 0.10, 0.20), _share),
    Factor("L5", "code", "likelihood", (50, 200), lambda value: f"{value:,.0f} KB"),
    Factor("L6", "environment changes", "likelihood", (1, 2, 3), _count("change")),
    Factor("L7", "room on the target", "likelihood", (0.30, 0.15, 0.05), _share, falling=True),
    Factor("I1", "state", "impact", (1, 2, 3, 4), lambda value: STATES[int(value)]),
    Factor("I2", "dependants", "impact", (1, 4, 11), _count("agent")),
    Factor("I3", "tier", "impact", (2, 1, 0), lambda value: f"tier {value:.0f}", falling=True),
    Factor("I4", "traffic", "impact", (1, 50), lambda value: f"{value:,.1f} calls/s"),
    Factor("I5", "healthy instances", "impact", (2, 1), _count("instance"), falling=True),
    Factor("I6", "way back", "impact", (5,), lambda value: f"{value:.1f} s at p95"),
)
BY_KEY = {factor.key: factor for factor in FACTORS}


class Aggravator(Struct, frozen=True):
    """What adds points above the 35 when it is so, or is not known to be otherwise."""

    key: str
    name: str
    points: int


AGGRAVATORS = (
    Aggravator("A1", "no backup was proved by a restore within 7 days", 3),
    Aggravator("A2", "less than 10 % of the error budget is left", 3),
    Aggravator("A3", "the judge could not see ten times the baseline's errors within 5 s", 3),
    Aggravator("A4", "outside of the window, or near the daily peak", 2),
    Aggravator("A5", "something that it needs is being changed too", 2),
    Aggravator("A6", "the new version's files cannot be read by the old one", 5),
)
REHEARSED = -3  # points, when this very plan was rehearsed
REHEARSED_S = 86400.0  # for so long
