"""Faults of hosts and of the network between them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from faults.scene import Scene

RELAY = Path(__file__).with_name("relay.py")
GARBLED_S = 10.0


def power_off(scene: Scene) -> None:
    """power of a host lost for 8 s"""
    host = scene.holder()[1]
    with scene.until_over(8.0, lambda: scene.fleet.lab.start(host)):
        scene.fleet.lab.machines()[host].power_off()


def cut_link(scene: Scene) -> None:
    """link of a host down for 8 s"""
    host = scene.holder()[1]
    with scene.until_over(8.0, lambda: scene.network(host, "ip", "link", "set", "host0", "up")):
        scene.network(host, "ip", "link", "set", "host0", "down")


def lose_what_comes(scene: Scene) -> None:
    """a host hears nobody for 6 s"""
    _filter(scene, "input", "iifname host0 drop", 6.0)


def lose_what_goes(scene: Scene) -> None:
    """a host is heard by nobody for 6 s"""
    _filter(scene, "output", "oifname host0 drop", 6.0)


def lose_a_third(scene: Scene) -> None:
    """30 % of the packets to a host lost for 10 s"""
    _filter(scene, "input", "iifname host0 numgen random mod 10 < 3 drop", 10.0)


def garble(scene: Scene) -> None:
    """packets of a host 200 ms late, 5 % twice, out of order, for 10 s"""
    host = scene.holder()[1]
    outside, bridge = _outside(scene, host), str(scene.fleet.lab.read()["bridge"])
    # Otherwise the host leaves checksums to a card that is not there, and cuts nothing into packets.
    scene.network(host, sys.executable, str(RELAY), "checksums", "host0", "off")
    relay: list[subprocess.Popen[bytes]] = []

    def undo() -> None:
        for process in relay:
            process.terminate()
            process.wait()
        _ip("link", "set", outside, "master", bridge)
        scene.network(host, sys.executable, str(RELAY), "checksums", "host0", "on")

    with scene.until_over(GARBLED_S, undo):
        _ip("link", "set", outside, "nomaster")
        # It ends by itself, should this program be killed.
        words = ["relay", outside, bridge, str(2 * GARBLED_S), str(scene.rng.random())]
        relay.append(subprocess.Popen([sys.executable, str(RELAY), *words]))


def _outside(scene: Scene, host: str) -> str:
    """This machine's end of a host's link."""
    inside = json.loads(scene.network(host, "ip", "-j", "link", "show", "host0") or "[]")
    if not inside:
        raise LookupError(f"{host} is off")
    index = inside[0]["link_index"]
    return next(str(link["ifname"]) for link in json.loads(_ip("-j", "link")) if link["ifindex"] == index)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=False, capture_output=True, text=True).stdout


def _filter(scene: Scene, hook: str, rule: str, seconds: float) -> None:
    host = scene.holder()[1]
    # A table of its own for each, as two may be at work on one host.
    table = f"fault_{hook}_{scene.rng.randrange(1 << 30)}"
    with scene.until_over(seconds, lambda: scene.network(host, "nft", f"delete table inet {table}")):
        made = f"add table inet {table}; add chain inet {table} it {{ type filter hook {hook} priority 0; }}; "
        scene.network(host, "nft", f"{made} add rule inet {table} it {rule}")
