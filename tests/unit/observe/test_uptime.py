"""Shares of the observed time, added up from look to look."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from outrider.observe.events import Seen
from outrider.observe.uptime import BLIND_S, HOURS_KEPT, Share, Uptime, fleet_share

UP = Seen("Memory", "Memory-1", "pc1", "passing", "replica")
DOWN = replace(UP, status="critical")
NOW = 3600.0 * 500_000


def uptime(folder: Path, *looks: tuple[float, list[Seen]], observing: bool = True) -> Uptime:
    made = Uptime(folder)
    for at, picture in looks:
        made.look(picture, NOW + at, at, observing=observing)
    return made


def test_time_counts_for_what_was_seen_at_its_beginning(tmp_path: Path) -> None:
    made = uptime(tmp_path, (0.0, [UP]), (3.0, [DOWN]), (4.0, [UP]), (8.0, [UP]))
    share = made.shares(1, NOW + 8)["Memory"]
    assert (share.observed_s, share.up_s, share.value) == (8.0, 7.0, 0.875)
    assert made.up() == {"Memory": True}


@pytest.mark.parametrize(
    ("picture", "up"),
    [
        ([UP, DOWN], True),
        ([replace(UP, status="warning")], True),
        ([replace(UP, role="standby")], False),
        ([replace(UP, role="standby"), replace(UP, instance="Memory-2", role="holder")], True),
    ],
)
def test_an_agent_is_there_if_callers_have_an_instance(tmp_path: Path, picture: list[Seen], up: bool) -> None:
    assert uptime(tmp_path, (0.0, [UP]), (1.0, picture)).up() == {"Memory": up}


def test_an_agent_that_starts_for_the_first_time_is_not_away(tmp_path: Path) -> None:
    made = uptime(tmp_path, (0.0, [DOWN]), (3.0, [UP]), (4.0, [DOWN]), (5.0, [DOWN]))
    assert made.shares(1, NOW)["Memory"] == Share(2.0, 1.0)


def test_what_nobody_observed_or_somebody_stopped_does_not_count(tmp_path: Path) -> None:
    stopped = [replace(UP, status="stopped")]
    made = uptime(tmp_path, (0.0, stopped), (1.0, [UP]), (2.0 + BLIND_S, [DOWN]), (3.0 + BLIND_S, [DOWN]))
    assert made.shares(1, NOW)["Memory"].observed_s == 1.0
    assert uptime(tmp_path, (0.0, [UP]), (4.0, [UP]), observing=False).shares(1, NOW) == {}


def test_it_survives_a_restart_and_forgets_what_is_old(tmp_path: Path) -> None:
    made = uptime(tmp_path, (0.0, [UP]), (4.0, [UP]))
    made.save(NOW + 4)
    again = Uptime(tmp_path)
    assert again.shares(24, NOW + 4)["Memory"].up_s == 4.0
    again.save(NOW + 3600.0 * (HOURS_KEPT + 1))
    assert Uptime(tmp_path).shares(10**6, NOW) == {}


@given(st.lists(st.tuples(st.floats(0.01, BLIND_S - 0.1), st.booleans()), min_size=1, max_size=30))
def test_the_sum_is_the_sum_of_its_parts(steps: list[tuple[float, bool]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        made, at = Uptime(Path(folder)), 0.0
        made.look([UP], NOW, at, observing=True)
        for lasted_s, up in steps:
            made.look([UP if up else DOWN], NOW, at, observing=True)
            at += lasted_s
        made.look([], NOW, at, observing=True)
    share = made.shares(1, NOW)["Memory"]
    assert share.observed_s == pytest.approx(sum(lasted_s for lasted_s, _ in steps))
    assert share.up_s == pytest.approx(sum(lasted_s for lasted_s, up in steps if up))
    assert fleet_share(made.shares(1, NOW)).value == share.value
