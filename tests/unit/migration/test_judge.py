"""The judge keeps its word about false alarms, exactly counted, and never takes silence for a go."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.migration.judge import (
    ALPHA,
    BETA,
    Signal,
    Verdict,
    beside,
    bits,
    detectable,
    excluded,
    judge,
    log_fine,
    log_worse,
    tolerated,
    upper_bound,
)

LONGEST = 200


def ever(p: float, crosses: list[list[bool]]) -> float:
    """The exact probability that a series with a share `p` of bad samples crosses at any of its looks."""
    alive, crossed = {0: 1.0}, 0.0
    for n in range(1, LONGEST + 1):
        following: dict[int, float] = {}
        for bad, mass in alive.items():
            for more, chance in ((1, p), (0, 1 - p)):
                if crosses[n][bad + more]:
                    crossed += mass * chance
                else:
                    following[bad + more] = following.get(bad + more, 0.0) + mass * chance
        alive = following
    return crossed


@pytest.mark.parametrize("p0", [0.005, 0.05, 0.3])
def test_what_is_no_worse_is_rolled_back_with_the_promised_probability_at_most(p0: float) -> None:
    for alpha in (0.05, ALPHA):
        limit = -math.log(alpha)
        crosses = [[log_worse(bad, n, p0) >= limit for bad in range(n + 1)] for n in range(LONGEST + 1)]
        assert ever(p0, crosses) <= alpha
        assert ever(p0 / 2, crosses) <= alpha
        assert ever(min(0.95, p0 + 0.4), crosses) > 0.999  # and it is no test that never says anything


@pytest.mark.parametrize("p0", [0.01, 0.05])
def test_what_is_as_bad_as_is_ruled_out_gets_an_early_go_with_the_promised_probability_at_most(p0: float) -> None:
    p1, limit = excluded(p0), -math.log(BETA)
    crosses = [[log_fine(bad, n, p1) >= limit for bad in range(n + 1)] for n in range(LONGEST + 1)]
    assert ever(p1, crosses) <= BETA
    assert ever(p0 / 10, crosses) > 0.5


@given(n=st.integers(1, 2000), bad=st.integers(0, 2000), p0=st.floats(0.001, 0.5))
def test_one_more_bad_sample_never_speaks_for_it(n: int, bad: int, p0: float) -> None:
    bad = min(bad, n)
    assert log_worse(bad + 1, n + 1, p0) >= log_worse(bad, n + 1, p0)
    assert log_fine(bad + 1, n + 1, excluded(p0)) <= log_fine(bad, n + 1, excluded(p0))


@given(n=st.integers(1, 400), share=st.floats(0.0, 1.0))
def test_the_upper_bound_of_a_share_is_where_its_tail_is_a_hundredth(n: int, share: float) -> None:
    bad = int(n * share)
    p = upper_bound(bad, n)
    assert bad / n <= p <= 1.0
    if bad < n:
        tail = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(bad + 1))
        assert tail == pytest.approx(0.01, rel=1e-3)


def test_a_longer_baseline_tolerates_less_and_none_is_refused() -> None:
    assert tolerated(5, 1000) > tolerated(50, 10_000) > 2 * 0.005
    assert tolerated(0, 1_000_000) == 0.002
    with pytest.raises(ValueError, match="0 bad of 0 samples is no baseline"):
        tolerated(0, 0)


def test_verdicts() -> None:
    well, ill = Signal("errors", 2, 4000, 0.01), Signal("latency", 300, 2000, 0.075)
    quiet = Signal("probes", 0, 3, 0.02)
    assert judge([well], over=False).word == "go"
    assert judge([well, ill], over=False).word == "rollback"
    assert judge([well, quiet], over=False).word == "continue"
    assert judge([well, quiet], over=True).word == "inconclusive"
    said = judge([well, quiet], over=True).said
    assert said.startswith("inconclusive: probes 0/3 bad, 2.00% is tolerated")
    assert said.endswith("could have seen 78.09%")
    assert judge([Signal("probes", 0, 1, 0.02)], over=True).said.endswith("could not have seen anything")
    assert "latency 300/2000 bad" in judge([well, ill], over=True).said


def test_silence_is_never_a_go() -> None:
    assert judge([], over=True).word == "inconclusive"
    assert judge([Signal("errors", 0, 0, 0.01)], over=True).word == "inconclusive"
    bad, n, missing = bits([0.1] * 4000 + [math.nan] * 4001 + [None, -1.0], limit=0.2)
    assert (bad, n, missing) == (0, 4000, 4003)
    assert judge([Signal("latency", bad, n, 0.075, missing)], over=True).word == "inconclusive"
    assert judge([Signal("latency", bad, n, 0.075)], over=True).word == "go"


def test_signals_share_the_risk_of_a_false_alarm() -> None:
    edge = next(bad for bad in range(400) if log_worse(bad, 400, 0.05) >= -math.log(ALPHA))
    alone = Signal("errors", edge, 400, 0.05)
    assert judge([alone], over=False).word == "rollback"
    others = [Signal(f"s{i}", 0, 400, 0.05) for i in range(200)]
    assert judge([alone, *others], over=False).word == "continue"


@pytest.mark.parametrize("wrong", [Signal("x", 2, 1, 0.1), Signal("x", -1, 1, 0.1), Signal("x", 0, 1, 0.0)])
def test_counts_that_cannot_be_are_refused(wrong: Signal) -> None:
    with pytest.raises(ValueError, match="no count of samples"):
        judge([wrong], over=False)


def test_what_could_have_been_seen_is_what_is_seen() -> None:
    n, p0 = 500, 0.01
    p = detectable(n, p0, ALPHA)
    assert p0 < p < 0.1
    # The mixture pays for not knowing the share: a third more bad samples do.
    assert log_worse(math.ceil(1.34 * n * p), n, p0) >= -math.log(ALPHA)
    assert log_worse(math.floor(0.9 * n * p), n, p0) < -math.log(ALPHA)
    assert detectable(2, p0, ALPHA) > 0.5
    assert detectable(1, p0, ALPHA) == 1.0


def test_a_canary_beside_the_old_ones_is_judged_by_whose_the_errors_are() -> None:
    p0 = beside(0.1)
    assert p0 == pytest.approx(2 / 11)
    assert judge([Signal("errors", 10, 100, p0)], over=True).word != "rollback"  # as many as its share of the calls
    assert judge([Signal("errors", 60, 100, p0)], over=True).word == "rollback"
    with pytest.raises(ValueError, match="nothing beside it"):
        beside(1.0)


def test_a_verdict_is_the_same_when_it_is_read_again() -> None:
    first = judge([Signal("errors", 3, 400, 0.01), Signal("latency", 30, 400, 0.075)], over=False)
    again = msgspec.json.decode(msgspec.json.encode(first), type=Verdict)
    assert again == first
    assert judge([finding.signal for finding in again.findings], over=False) == first
