"""Standbys take an agent that can be told that it holds no lease."""

from __future__ import annotations

from pathlib import Path

import pytest

from outrider.errors import FleetError
from outrider.fleet.load import load_fleet

FLEET = """
fleet: small
groups:
  all:
    agents:
      Memory: {{module: memory, mode: singleton, standbys: 1, ports: {ports}}}
"""


@pytest.mark.parametrize(("ports", "refused"), [("{main: 7000}", True), ("{main: 7000, call: auto}", False)])
def test_standbys_of_an_agent_that_serves_no_calls_are_refused(tmp_path: Path, ports: str, refused: bool) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text(FLEET.format(ports=ports))
    if refused:
        with pytest.raises(FleetError, match=r"standbys take an agent that serves calls"):
            load_fleet(path)
    else:
        load_fleet(path)
