"""Every role's Molecule scenarios, each on untouched lab hosts of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hosts.lab.image import CHECKOUT
from hosts.lab.lab import Lab

SCENARIOS = sorted(path.parent for path in CHECKOUT.glob("roles/*/molecule/*/molecule.yml"))
SCENARIO_S = 600
SAID = 8000  # characters of a failed run's end that are shown


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: f"{path.parents[1].name}-{path.name}")
def test_scenario(scenario: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="mol") as folder:
        environment = {
            **os.environ,
            "OUTRIDER_MOLECULE_LAB": f"{folder}/lab",
            "MOLECULE_EPHEMERAL_DIRECTORY": f"{folder}/molecule",
            "ANSIBLE_HOME": f"{folder}/ansible",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": f"{folder}/facts",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "NO_COLOR": "1",
        }
        try:
            done = subprocess.run(
                ["molecule", "test", "--scenario-name", scenario.name],
                cwd=scenario.parents[1],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SCENARIO_S,
                check=False,
            )
        finally:
            Lab(Path(folder) / "lab").down()
    assert done.returncode == 0, done.stdout[-SAID:]
