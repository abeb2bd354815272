"""For the tests of migrations."""

from __future__ import annotations

from pathlib import Path

import pytest

from outrider.migration.risk.observed import Published
from unit.migration.risk_world import published


@pytest.fixture
def world(tmp_path: Path) -> Published:
    """The documents of the small fleet of risk_world, placed."""
    return published(tmp_path)
