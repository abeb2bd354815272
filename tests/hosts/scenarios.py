"""Molecule's scenarios, run in the background: each on untouched lab hosts of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from hosts.lab.image import CHECKOUT
from hosts.lab.lab import Lab

SCENARIOS = sorted(path.parent for path in CHECKOUT.glob("roles/*/molecule/*/molecule.yml"))
SCENARIO_S = 1200
AT_ONCE = 2


class Scenarios:
    """Those that were asked for, from now on."""

    def __init__(self, chosen: list[Path]) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._running: set[subprocess.Popen[str]] = set()
        self._said: dict[Path, Future[tuple[int, str]]] = {
            scenario: self._pool.submit(self._run, scenario) for scenario in chosen
        }

    def said(self, scenario: Path) -> tuple[int, str]:
        """Exit status and output, once it has ended."""
        return self._said[scenario].result()

    def end(self) -> None:
        """No scenario goes on, and no host of one is left; also after Ctrl-C."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        self._pool.shutdown()

    def _run(self, scenario: Path) -> tuple[int, str]:
        with tempfile.TemporaryDirectory(prefix="mol") as folder:
            process = _started(scenario, folder)
            self._running.add(process)
            try:
                output, _ = process.communicate(timeout=SCENARIO_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
                output += f"\nnot done within {SCENARIO_S} s"
            finally:
                self._running.discard(process)
                Lab(Path(folder) / "lab").down()
        return process.returncode, output


def _started(scenario: Path, folder: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "OUTRIDER_MOLECULE_LAB": f"{folder}/lab",
        "MOLECULE_EPHEMERAL_DIRECTORY": f"{folder}/molecule",
        "ANSIBLE_HOME": f"{folder}/ansible",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": f"{folder}/facts",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NO_COLOR": "1",
    }
    return subprocess.Popen(
        ["molecule", "test", "--scenario-name", scenario.name],
        cwd=scenario.parents[1],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
