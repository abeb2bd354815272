"""Points add up as the table says; what is not known counts as the worst; severity sets floors."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.migration.risk.factors import AGGRAVATORS, BY_KEY, FACTORS, Factor
from outrider.migration.risk.score import (
    BANDS,
    KNOWN_FROM,
    Assessment,
    Measure,
    probability,
    score,
    smoothed_rate,
)


def best(factor: Factor) -> float:
    return math.inf if factor.falling else 0


CALM = {factor.key: Measure(best(factor), "test") for factor in FACTORS}
NOTHING = {each.key: Measure(0, "test") for each in AGGRAVATORS}


def test_likelihood_is_20_and_impact_15() -> None:
    assert sum(factor.most for factor in FACTORS if factor.side == "likelihood") == 20
    assert sum(factor.most for factor in FACTORS if factor.side == "impact") == 15
    assert len(FACTORS) == 13


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("L1", [(0, 0), (1, 1), (50, 1), (51, 2), (300, 2), (301, 3), (1500, 3), (1501, 4), (math.inf, 4)]),
        ("L3", [(math.inf, 0), (91, 0), (90, 1), (31, 1), (30, 2), (8, 2), (7, 3), (0, 3)]),
        ("L7", [(0.5, 0), (0.3, 1), (0.2, 1), (0.15, 2), (0.06, 2), (0.05, 3), (0, 3)]),
        ("I1", [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]),
        ("I3", [(3, 0), (2, 1), (1, 2), (0, 3)]),
        ("I5", [(3, 0), (2, 1), (1, 2), (0, 2)]),
        ("L5", [(0, 0), (50, 1), (200, 2)]),
    ],
)
def test_points_change_where_the_table_says(key: str, values: list[tuple[float, int]]) -> None:
    assert [(value, BY_KEY[key].points(value)) for value, _ in values] == values
    assert BY_KEY[key].points(math.nan) == BY_KEY[key].most


def test_an_agent_with_nothing_against_it_is_low_and_each_point_has_its_evidence() -> None:
    calm = score(CALM, NOTHING)
    assert (calm.points, calm.band.name, calm.floor) == (0, "low", "")
    assert all(each.evidence == "test" and each.measured for each in calm.contributions)


def test_what_is_not_known_takes_the_worst_and_says_so() -> None:
    blind = score({}, {})
    assert (blind.likelihood, blind.impact) == (20, 15)
    assert blind.points == 35 + sum(each.points for each in AGGRAVATORS)
    assert not any(each.measured for each in blind.contributions)
    one = score({**CALM, "L6": Measure(None, "lab3 does not answer")}, NOTHING)
    [said] = [each for each in one.contributions if not each.measured]
    assert (said.key, said.points, said.said, said.evidence) == ("L6", 3, "not known", "lab3 does not answer")


@pytest.mark.parametrize(
    ("measures", "aggravating", "stop", "band", "floor"),
    [
        ({"I1": 3}, {}, "", "high", "its state has a single writer"),
        ({"I1": 2}, {}, "", "low", ""),
        ({}, {"A6": 1}, "", "critical", "there is no way back to the old files"),
        ({}, {}, "its owner is not known", "no-go", "its owner is not known"),
    ],
)
def test_severity_sets_the_least_band(
    measures: dict[str, float], aggravating: dict[str, float], stop: str, band: str, floor: str
) -> None:
    found = score(
        {**CALM, **{key: Measure(value, "test") for key, value in measures.items()}},
        {**NOTHING, **{key: Measure(value, "test") for key, value in aggravating.items()}},
        rehearsed=True,
        stop=stop,
    )
    assert (found.band.name, found.floor) == (band, floor)


def test_a_rehearsal_takes_points_away_but_never_below_nothing() -> None:
    risky = {**CALM, "L1": Measure(1501, "test"), "L3": Measure(1, "test")}
    assert [score(risky, NOTHING, rehearsed=each).points for each in (False, True)] == [7, 4]
    assert score(CALM, NOTHING, rehearsed=True).points == 0


def test_a_factor_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no such factor: L8"):
        score({"L8": Measure(1, "test")}, NOTHING)


def severity(found: Assessment) -> int:
    return BANDS.index(found.band)


def near(factor: Factor) -> st.SearchStrategy[float]:
    """Values on both sides of every edge: spread evenly they would all lie beyond the last one of a share."""
    if factor.key == "I1":
        return st.integers(0, 4).map(float)
    edges = [edge * part for edge in factor.edges for part in (0.9, 1.0, 1.1)]
    return st.sampled_from([0.0, 0.5, math.inf, *edges]) | st.floats(0, 2 * max(factor.edges))


chosen = st.fixed_dictionaries({factor.key: near(factor) for factor in FACTORS})
yes_or_no = st.fixed_dictionaries({each.key: st.integers(0, 1).map(float) for each in AGGRAVATORS})


@given(chosen, chosen, yes_or_no, st.booleans())
def test_making_one_thing_worse_or_not_knowing_it_never_lowers_the_band(
    values: dict[str, float], others: dict[str, float], so: dict[str, float], rehearsed: bool
) -> None:
    def found(key: str = "", value: float | None = 0.0) -> Assessment:
        measures = {name: Measure(each, "test") for name, each in values.items()}
        extra = {name: Measure(each, "test") for name, each in so.items()}
        if key:
            (measures if key in measures else extra)[key] = Measure(value, "test")
        return score(measures, extra, rehearsed=rehearsed)

    before = found()
    for key in (*values, *so):
        worse = 1.0 if key in so else (min if BY_KEY[key].falling else max)(values[key], others[key])
        after, blind = found(key, worse), found(key, None)
        assert severity(before) <= severity(after) <= severity(blind)
        assert before.points <= after.points <= blind.points


def test_the_probability_of_failure_is_not_printed_before_it_is_known() -> None:
    assert smoothed_rate(0, 0) == 0.1
    assert smoothed_rate(2, 20) == pytest.approx(0.1)
    assert probability(KNOWN_FROM - 1, 500).startswith("not yet known (29 of 500")
    assert probability(KNOWN_FROM, 490) == "6.2%"


def test_the_page_has_every_factor_with_its_points_and_every_band() -> None:
    page = (Path(__file__).parents[3] / "docs/risk.md").read_text()
    for factor in FACTORS:
        [row] = [line for line in page.splitlines() if line.startswith(f"| {factor.key} ")]
        assert len([cell for cell in row.split("|")[2:] if cell.strip()]) == factor.most + 1
    for band in BANDS:
        assert f"| {band.name} | {band.least} " in page
