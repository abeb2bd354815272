#!/usr/bin/python
"""Module local_ports: the ports a host's daemons listen on, chosen once and kept."""

from __future__ import annotations

DOCUMENTATION = r"""
module: local_ports
short_description: Choose ports that are free, and keep the choice
version_added: "0.1.0"
description:
  - Takes each wanted port if it is free for TCP and UDP. A taken one is named with its owner, and another is chosen.
  - The choice is kept, so that a second run changes nothing.
options:
  ports: {description: Wanted ports by name., type: dict, required: true}
  state_file: {description: JSON file that keeps the choice., type: path, required: true}
  address: {description: Address that the ports are for., type: str, default: 127.0.0.1}
  free: {description: Whether another port is chosen or a taken one refused., type: bool, default: true}
  mine: {description: A folder. Processes that have it in their environment keep their ports., type: path}
attributes:
  check_mode: {support: full, description: Chooses but keeps nothing.}
  diff_mode: {support: full, description: Shows the kept choice before and after.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Ports of the Consul agent
  local_ports: {ports: {consul_http: 8500, consul_dns: 8600}, state_file: .outrider/state/ports.json}
  register: chosen
"""

RETURN = r"""
ports: {description: Chosen ports by name., returned: always, type: dict, sample: {consul_http: 18500}}
moved: {description: One sentence for each wanted port that is taken., returned: always, type: list, elements: str}
"""

import contextlib
import json
import socket
from itertools import chain
from pathlib import Path

import psutil
from ansible.module_utils.basic import AnsibleModule

Ports = dict[str, int]


def is_free(address: str, port: int) -> bool:
    """True if a daemon could listen there now, for TCP and UDP."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(family, kind) as probe:
            # As a daemon does: a connection in TIME_WAIT does not keep it from listening. For UDP it would share.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def owner(port: int) -> psutil.Process | None:
    """The process that listens there; None if it is another user's."""
    for connection in psutil.net_connections("inet"):
        listens = connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
        if connection.laddr and connection.laddr.port == port and listens and connection.pid:
            return psutil.Process(connection.pid)
    return None


def is_mine(port: int, folder: str | None) -> bool:
    process = owner(port)
    with contextlib.suppress(psutil.Error):
        return bool(process and folder in process.environ().values())
    return False


def choose(wanted: Ports, kept: Ports, address: str, mine: str | None) -> tuple[Ports, list[str]]:
    """Ports by name, and what had to give way: kept, else wanted, else the first free one ten thousand above."""
    chosen: Ports = {}
    moved: list[str] = []
    for name, port in wanted.items():
        old = kept.get(name)
        if old and old not in chosen.values() and (is_free(address, old) or is_mine(old, mine)):
            chosen[name] = old
            continue
        # Below 32768, where the kernel takes the ports of outgoing connections from.
        first = 10000 + port % 10000
        taken = {*chosen.values(), *wanted.values()} - {port}
        candidates = chain([port], range(first, 32768), range(10000, first))
        chosen[name] = next(p for p in candidates if p not in taken and is_free(address, p))
        if chosen[name] != port:
            process = owner(port)
            by = f"{process.name()} (pid {process.pid})" if process else "another user's process"
            moved.append(f"{name}: port {port} is taken by {by}; {chosen[name]} is used instead")
    return chosen, moved


def main() -> None:
    spec = {"ports": {"type": "dict", "required": True}, "state_file": {"type": "path", "required": True}}
    spec |= {"address": {"default": "127.0.0.1"}, "free": {"type": "bool", "default": True}, "mine": {"type": "path"}}
    module = AnsibleModule(spec, supports_check_mode=True)
    file = Path(module.params["state_file"])
    before = json.loads(file.read_text()) if file.exists() else {}
    wanted = {name: int(port) for name, port in module.params["ports"].items()}
    ports, moved = choose(wanted, before, module.params["address"], module.params["mine"])
    if moved and not module.params["free"]:
        module.fail_json(msg="; ".join(line.split(";")[0] for line in moved), ports=ports, moved=moved)
    after = {**before, **ports}
    shown = [json.dumps(value, indent=1, sort_keys=True) + "\n" for value in (before, after)]
    if after != before and not module.check_mode:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(module.tmpdir, file.name)
        fresh.write_text(shown[1])
        module.atomic_move(str(fresh), str(file))
    diff = {"before": shown[0], "after": shown[1], "before_header": str(file)}
    module.exit_json(changed=after != before, ports=ports, moved=moved, diff=diff)


if __name__ == "__main__":
    main()
