"""A scene for each test of backups."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.migration.backup.scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """An empty state folder, and no backup yet."""
    return Scene(tmp_path)
