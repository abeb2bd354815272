"""Hosts as placement sees them, from an Ansible inventory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outrider.errors import FleetError
from outrider.fleet.spec import Host

AGENT_HOSTS = "agent_hosts"
SERVERS = "consul_servers"


def read_inventory(path: Path) -> dict[str, Any]:
    """What `ansible-inventory --list` says of an inventory. Raises FleetError with Ansible's own words."""
    program = Path(sys.executable).with_name("ansible-inventory")
    try:
        done = subprocess.run([program, "-i", path, "--list"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise FleetError([f"{program}: {error.strerror}"], hint="install ansible-core beside Outrider") from error
    if done.returncode:
        raise FleetError([f"{path}: {done.stderr.strip()}"])
    return dict(json.loads(done.stdout))


def members(inventory: Mapping[str, Any], group: str) -> set[str]:
    """Hosts of a group and of its child groups."""
    body = inventory.get(group) or {}
    found = set(body.get("hosts", ()))
    for child in body.get("children", ()):
        found |= members(inventory, child)
    return found


def hosts_of(inventory: Mapping[str, Any]) -> tuple[Host, ...]:
    """Hosts of the group `agent_hosts`, or all if there is no such group, sorted by name."""
    names = members(inventory, AGENT_HOSTS) if AGENT_HOSTS in inventory else members(inventory, "all")
    groups = [name for name, body in inventory.items() if name not in ("_meta", "all") and isinstance(body, dict)]
    variables = inventory.get("_meta", {}).get("hostvars", {})
    return tuple(
        _host(name, tuple(group for group in groups if name in members(inventory, group)), variables.get(name, {}))
        for name in sorted(names)
    )


def _host(name: str, groups: tuple[str, ...], variables: Mapping[str, Any]) -> Host:
    return Host(
        name=name,
        address=str(variables.get("outrider_address") or variables.get("ansible_host") or "127.0.0.1"),
        groups=groups,
        labels={str(key): str(value) for key, value in (variables.get("outrider_labels") or {}).items()},
        cpu=variables.get("outrider_cpu"),
        memory_mib=variables.get("outrider_memory_mib"),
        gpus_mib=tuple(variables.get("outrider_gpus_mib") or ()),
    )
