"""What is judged: the new one's calls by how the old one did."""

from __future__ import annotations

from outrider.calls.tally import BOUNDS
from outrider.migration.judge import judge
from outrider.migration.staged.evidence import baseline_of, kept, of_gpu, signals, slow_from
from outrider.migration.staged.sight import Counts

WIDE = len(BOUNDS) + 1


def buckets(**at: int) -> tuple[int, ...]:
    found = [0] * WIDE
    for index, count in at.items():
        found[int(index[1:])] = count
    return tuple(found)


def test_slow_is_what_the_old_one_took_for_one_call_in_twenty() -> None:
    assert slow_from(buckets(b2=95, b5=5)) == 3
    assert slow_from(buckets(b2=90, b5=10)) == 6
    assert slow_from(buckets(b17=100)) == WIDE - 1


def test_gpu_memory_beyond_what_is_declared_leads_back_and_is_no_signal_where_it_is_not_measured() -> None:
    before, now = Counts(10_000, 10, buckets(b2=9_800, b5=200)), Counts(1_000, 1, buckets(b2=990, b5=10))
    assert [of_gpu((1, 2), used, 100) for used in (110, 111, None)] == [(1, 3), (2, 3), (1, 2)]
    assert of_gpu((0, 0), 500, None) == (0, 0)
    assert [signal.name for signal in signals(before, now, (0, 0), vram=(0, 0))] == ["errors", "slow calls"]
    assert [signal.name for signal in signals(None, None, (0, 9), vram=(0, 9))] == ["probes", "vram"]
    assert judge(signals(before, now, (0, 0), vram=(0, 60)), over=False).word == "go"
    assert judge(signals(before, now, (0, 0), vram=(20, 20)), over=False).word == "rollback"


def test_errors_and_slow_calls_are_held_against_the_baseline() -> None:
    before = Counts(10_000, 10, buckets(b2=9_800, b5=200))
    well = signals(before, Counts(1_000, 1, buckets(b2=990, b5=10)), (0, 0))
    assert [signal.name for signal in well] == ["errors", "slow calls"]
    assert judge(well, over=False).word == "go"
    failing = signals(before, Counts(100, 30, buckets(b2=100)), (0, 0))
    assert judge(failing, over=False).word == "rollback"
    slow = signals(before, Counts(200, 0, buckets(b9=200)), (0, 0))
    assert judge(slow, over=False).word == "rollback"


def test_calls_that_all_waited_for_the_cutover_are_not_slow_and_may_still_fail() -> None:
    before = Counts(10_000, 10, buckets(b2=9_800, b5=200))
    burst = Counts(62, 0, buckets(b2=20, b9=42))
    assert judge(signals(before, burst, (0, 0), slow_since=None), over=False).word == "continue"
    after = Counts(562, 0, buckets(b2=515, b5=5, b9=42))
    assert judge(signals(before, after, (0, 0), slow_since=burst), over=False).word == "go"
    assert judge(signals(before, burst, (0, 0)), over=False).word == "rollback"
    failing = Counts(62, 30, burst.buckets)
    assert judge(signals(before, failing, (0, 0), slow_since=None), over=False).word == "rollback"
    restarted = Counts(60, 0, buckets(b9=60))
    assert judge(signals(before, restarted, (0, 0), slow_since=burst), over=False).word == "rollback"


def test_what_went_well_with_a_few_calls_does_not_speak_for_all() -> None:
    canary = Counts(5_000, 0, buckets(b2=5_000))
    assert judge(signals(canary, canary, (0, 0), None, None), over=False).word == "continue"
    assert judge(signals(canary, canary, (0, 0), canary, canary), over=False).word == "continue"
    failing = Counts(5_060, 30, buckets(b2=5_060))
    assert judge(signals(canary, failing, (0, 0), canary, canary), over=False).word == "rollback"


def test_one_that_callers_left_alone_because_it_failed_is_not_well_for_that() -> None:
    before = Counts(10_000, 10, buckets(b2=10_000))
    canary = Counts(14, 6, buckets(b2=14))
    for now in (canary, Counts(15, 6, buckets(b2=15)), Counts(60, 6, buckets(b2=60))):
        assert judge(signals(before, now, (0, 10), canary, canary), over=False).word == "rollback"
    assert judge(signals(before, canary, (0, 10), None, None), over=False).word == "rollback"
    # One bad call of the canary is no reason when all later ones are well.
    blip = Counts(14, 1, buckets(b2=14))
    assert judge(signals(before, Counts(1_014, 1, buckets(b2=1_014)), (0, 10), blip, blip), over=True).word == "go"


def test_without_a_baseline_only_many_errors_speak_against_it() -> None:
    found = signals(None, Counts(100, 5, buckets(b2=100)), (0, 0))
    assert [signal.name for signal in found] == ["errors"]
    assert judge(found, over=False).word == "continue"
    assert judge(signals(None, Counts(100, 60), (0, 0)), over=False).word == "rollback"


def test_one_that_does_not_count_its_calls_is_judged_by_its_probes() -> None:
    assert judge(signals(None, None, (0, 1_000)), over=False).word == "go"
    assert judge(signals(None, None, (30, 40)), over=False).word == "rollback"


def test_a_verdict_can_be_computed_again_from_what_is_kept() -> None:
    found = kept(judge(signals(None, Counts(100, 60), (0, 0)), over=False))
    assert found["verdict"] == "rollback"
    assert (found["signals"][0]["bad"], found["signals"][0]["n"]) == (60, 100)
    assert baseline_of({"baseline": {"calls": 5, "failed": 1, "buckets": [5]}}) == Counts(5, 1, (5,))
    assert baseline_of({}) is None
