"""Which fleet file and which hosts belong together: from a path, an inventory, or the folder one stands in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from outrider.errors import FleetError
from outrider.fleet.hosts import SERVERS, hosts_of, members, read_inventory
from outrider.fleet.spec import Host

FLEET_FILE = "fleet.yml"
INVENTORY_FILES = ("hosts.yml", "hosts.yaml", "hosts.ini", "hosts", "inventory.yml", "inventory.ini")
QUORUM = 3
# `ansible-inventory` fills in no templates; this one is what our inventories say.
_FOLDER = re.compile(r"\{\{\s*inventory_dir((?:\s*\|\s*dirname)*)\s*\}\}")


class Opened(Struct, frozen=True):
    """A fleet file and the hosts it is for; None if no inventory is known."""

    fleet_file: Path
    hosts: tuple[Host, ...] | None
    warnings: tuple[str, ...] = ()


def open_inventory(path: Path | None, inventory: Path | None) -> Opened:
    """Find the fleet file and its hosts. `path`: a fleet file or an inventory folder; by default `./fleet.yml`.

    Raises FleetError if there is nothing to find, or with what Ansible says of the inventory.
    """
    if path is not None and path.is_dir():
        inventory, path = inventory or path, None
    elif path is None and inventory is None:
        path = _here()
    if inventory is None:
        assert path is not None
        inventory = _beside(path)
    if inventory is None:
        unchecked = "no inventory: whether the hosts exist, have room and free ports was not checked (-i INVENTORY)"
        return Opened(path or Path(FLEET_FILE), None, (unchecked,))
    if path is not None and not path.exists():
        raise FleetError([f"{path}: No such file or directory"])
    data = read_inventory(inventory)
    return Opened(path or _declared(data, inventory), hosts_of(data), tuple(_warnings(data)))


def _here() -> Path:
    if Path(FLEET_FILE).exists():
        return Path(FLEET_FILE)
    known = [str(folder) for folder in sorted(Path("inventories").glob("*/")) if _inventory_file(folder)]
    hint = f"name a fleet file or an inventory folder{': ' + ', '.join(known) if known else ''}"
    raise FleetError([f"{Path.cwd()}: there is no {FLEET_FILE} here"], hint=hint)


def _inventory_file(folder: Path) -> bool:
    return any((folder / name).is_file() for name in INVENTORY_FILES)


def _beside(path: Path) -> Path | None:
    return path.parent if _inventory_file(path.parent) else None


def _declared(data: Mapping[str, Any], inventory: Path) -> Path:
    """The file that the variable `fleet_file` of the hosts names, else fleet.yml beside the inventory."""
    folder = inventory if inventory.is_dir() else inventory.parent
    variables = data.get("_meta", {}).get("hostvars", {}).values()
    named = next((str(item["fleet_file"]) for item in variables if item.get("fleet_file")), "")
    if not named:
        return folder / FLEET_FILE

    def fill(match: re.Match[str]) -> str:
        ups = match[1].count("dirname")
        return str(folder.resolve().parents[ups - 1] if ups else folder)

    filled = _FOLDER.sub(fill, named)
    if "{{" in filled:
        raise FleetError([f"{inventory}: fleet_file is the template {named}"], hint="name the fleet file as PATH")
    path = folder / filled if not _FOLDER.search(named) else Path(filled)
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def _warnings(data: Mapping[str, Any]) -> list[str]:
    servers = len(members(data, SERVERS))
    if servers >= QUORUM:
        return []
    have = f"{servers} Consul server{'s' if servers != 1 else ''} in the group {SERVERS}"
    return [
        f"{have}: {QUORUM} are needed to go on when one dies. With fewer its loss stops every write: no registration, "
        "no failover, no migration until it is back; lookups go on with what was last known"
    ]
