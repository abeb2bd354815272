"""Hosts as placement sees them, from an Ansible inventory."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from outrider.errors import FleetError
from outrider.fleet.spec import Host

AGENT_HOSTS = "agent_hosts"
SERVERS = "consul_servers"
PROGRAM = "ansible-inventory"
VARIABLES = {"cpu": "outrider_cpu", "memory_mib": "outrider_memory_mib", "gpus_mib": "outrider_gpus_mib"}
ALLOWED = {
    "outrider_cpu": "a number of cores",
    "outrider_memory_mib": "a whole number of MiB",
    "outrider_gpus_mib": "a list of whole numbers, MiB of each GPU",
    "outrider_labels": "a mapping of label to text",
}
TIMEOUT_S = 120.0
SAID = 3  # lines of Ansible's own words; its parsers each add a page


def read_inventory(path: Path) -> dict[str, Any]:
    """What `ansible-inventory --list` says of an inventory. Raises FleetError with Ansible's own words."""
    if not path.exists():
        raise FleetError([f"{path}: no such inventory"])
    beside = Path(sys.executable).with_name(PROGRAM)
    program = str(beside) if beside.exists() else shutil.which(PROGRAM)
    if program is None:
        raise FleetError([f"{path}: {PROGRAM} is not installed"], hint="install ansible-core beside Outrider")
    command = [program, "-i", str(path), "--list"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise FleetError([f"{path}: {PROGRAM} did not end in {TIMEOUT_S:g} s"]) from error
    if done.returncode:
        raise FleetError([f"{path}: {_said(done.stderr)}"])
    found = dict(json.loads(done.stdout))
    # What Ansible cannot read is only a warning to it, and the inventory is then empty.
    if not members(found, "all"):
        raise FleetError([f"{path}: no hosts: {_said(done.stderr) or 'the inventory is empty'}"])
    return found


def _said(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:SAID]) + (" ..." if len(lines) > SAID else "")


def members(inventory: Mapping[str, Any], group: str) -> set[str]:
    """Hosts of a group and of its child groups."""
    body = inventory.get(group) or {}
    found = set(body.get("hosts", ()))
    for child in body.get("children", ()):
        found |= members(inventory, child)
    return found


def hosts_of(inventory: Mapping[str, Any]) -> tuple[Host, ...]:
    """Hosts of the group `agent_hosts`, or all if there is no such group, sorted by name.

    Templates are not filled in by `ansible-inventory`; a quantity that is one counts as without limit.
    Raises FleetError naming the variables that are no quantities.
    """
    names = members(inventory, AGENT_HOSTS if AGENT_HOSTS in inventory else "all")
    groups = {name: members(inventory, name) for name in inventory if name not in ("_meta", "all")}
    variables = inventory.get("_meta", {}).get("hostvars", {})
    hosts, problems = [], []
    for name in sorted(names):
        mine = tuple(group for group, them in groups.items() if name in them)
        try:
            hosts.append(_host(name, mine, variables.get(name, {})))
        except msgspec.ValidationError as error:
            key = re.sub(r".*at `\$\.(\w+).*", r"\1", str(error))
            variable = VARIABLES.get(key, "outrider_labels")
            problems.append(
                f"host {name}: {variable}: found {variables[name][variable]!r}, allowed: {ALLOWED[variable]}"
            )
    if problems:
        raise FleetError(problems, hint="mend the host's variables in the inventory")
    return tuple(hosts)


def _host(name: str, groups: tuple[str, ...], variables: Mapping[str, Any]) -> Host:
    address = next((variables[key] for key in ("outrider_address", "ansible_host") if _plain(variables.get(key))), "")
    labels = variables.get("outrider_labels") or {}
    raw = {
        "name": name,
        "address": str(address or "127.0.0.1"),
        "groups": groups,
        "labels": {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else labels,
    }
    raw |= {key: variables[variable] for key, variable in VARIABLES.items() if _plain(variables.get(variable))}
    return msgspec.convert(raw, Host, strict=False)


def _plain(value: Any) -> bool:
    return value is not None and "{{" not in str(value)
