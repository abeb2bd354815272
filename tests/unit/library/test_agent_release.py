"""Old releases make room, but never one that is wanted, nor the newest of the others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "library"))

from agent_release import outdated


def test_the_wanted_and_the_newest_others_stay(tmp_path: Path) -> None:
    for age, name in enumerate("abcde"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    assert outdated(tmp_path, {"e"}, keep=2) == {"c", "d"}
    assert outdated(tmp_path, {"e"}, keep=4) == set()
    assert outdated(tmp_path / "missing", {"e"}, keep=0) == set()
