"""Standbys take an agent that stops when it loses its lease; and when a singleton goes home."""

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
      Memory: {{module: memory, {keys}}}
"""
CALLS = "ports: {main: 7000, call: auto}"
HTTP = "mode: singleton, ports: {main: 7000}"


@pytest.mark.parametrize(
    "keys",
    [
        f"mode: singleton, standbys: 1, {CALLS}",
        f"{HTTP}, standbys: 1, fence: deadman",
        f"{HTTP}, fence: deadman",
        HTTP,
        f"{HTTP}, failback_s: 60, failback_window: 22:30-05:00",
    ],
)
def test_what_is_fenced_may_have_standbys(tmp_path: Path, keys: str) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text(FLEET.format(keys=keys))
    load_fleet(path)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (f"{HTTP}, standbys: 1", r"standbys take an agent that serves calls .* or has a dead-man \(`fence: deadman`\)"),
        ("fence: deadman", "only a singleton has a lease that ends: `mode: singleton`"),
        (f"mode: singleton, fence: deadman, {CALLS}", r"serves calls \(port `call`\) stops by itself; leave it out"),
        (
            "mode: singleton, fence: deadman, hosts: {pc1: {ports: {call: 7001}}}",
            r"serves calls \(port `call`\) stops by itself",
        ),
        (f"{HTTP}, fence: library", r"found 'library' \(text\), allowed: deadman"),
        (f"{HTTP}, failback_window: 01:00-05:00", "that it does takes `failback_s`"),
        (f"{HTTP}, failback_s: 60, failback_window: 01:00-01:00", "found 01:00-01:00, which is no time"),
        (f"{HTTP}, failback_s: 60, failback_window: 01:00-24:00", "failback_window: found '01:00-24:00'"),
    ],
)
def test_what_is_not_is_refused(tmp_path: Path, keys: str, said: str) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text(FLEET.format(keys=keys))
    with pytest.raises(FleetError, match=said):
        load_fleet(path)
