"""Every role's Molecule scenarios, each on untouched lab hosts of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hosts.scenarios import SCENARIOS, Scenarios

SAID = 8000  # characters of a failed run's end that are shown


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: f"{path.parents[1].name}-{path.name}")
def test_scenario(scenarios: Scenarios, scenario: Path) -> None:
    status, output = scenarios.said(scenario)
    assert status == 0, output[-SAID:]
