"""The lab's bridge and subnet: chosen at random among what this machine does not use."""

from __future__ import annotations

import ipaddress
import json
import random
import subprocess


def ip(*words: str, check: bool = True) -> str:
    """Run `ip`; its output. Raises CalledProcessError."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"lab: `ip {' '.join(words)}`: {done.stderr.strip()}")
    return done.stdout


def free_subnet() -> ipaddress.IPv4Network:
    """A 10.x.y.0/24 that no route of this machine covers."""
    routes = [ipaddress.ip_network(r["dst"]) for r in json.loads(ip("-j", "-4", "route")) if r["dst"] != "default"]
    while True:
        subnet = ipaddress.IPv4Network((10 << 24 | random.randrange(1, 255) << 16 | random.randrange(255) << 8, 24))
        if not any(subnet.overlaps(route) for route in routes):
            return subnet


def add_bridge(name: str, address: str) -> None:
    """Make the bridge; this machine is `address` on it."""
    ip("link", "add", name, "type", "bridge", "forward_delay", "0", "stp_state", "0")
    # Otherwise it takes the lowest address of its ports, anew with each: a host that knew the old one would be deaf.
    mac = ":".join(f"{byte:02x}" for byte in (0x02, *random.randbytes(5)))
    ip("link", "set", name, "address", mac)
    ip("addr", "add", f"{address}/24", "dev", name)
    ip("link", "set", name, "up")


def remove_bridge(name: str) -> None:
    """Remove it if it is there."""
    if ip("link", "show", name, check=False):
        ip("link", "del", name)
