"""How soon every lab host sees a change: Outrider's catalogue, and beside it a blocking query by python-consul2.

The same processes are killed for each system, one system after the other, so that none waits for another's work. All
hosts share the machine's monotonic clock: what one does and another sees can be compared.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, Queue
from typing import NamedTuple

import msgspec
from harness import Row, row

from hosts.fleet import Fleet
from outrider.registry.layout import AgentDoc

SEEN_S = 10.0  # a change that a host has not seen by then is a failure of the system
READY_S = 60.0
# What counts as steady is 10 s of life: younger instances restart with back-off.
STEADY_S = 11.0
LIGHT = ("sample_agent", "singleton")

CATALOGUE = """
import json, sys, threading, time
from pathlib import Path
from outrider.discovery.reader import Catalogue
names = json.loads(sys.stdin.readline())["names"]
done, seen, generation = [], {}, -1
threading.Thread(target=lambda: done.append(sys.stdin.read()), daemon=True).start()
reader = Catalogue(Path("/run/outrider"))
while not done:
    reader.refresh()
    if reader.generation != generation:
        generation = reader.generation
        for name in names:
            there = bool(reader.lookup(name).instances)
            if seen.get(name) != there:
                seen[name] = there
                print(name, int(there), time.monotonic_ns(), flush=True)
    time.sleep(0.001)
"""
BLOCKING = """
import json, sys, threading, time
import consul
given = json.loads(sys.stdin.readline())
said = threading.Lock()
def follow(name):
    index, seen = None, None
    client = consul.Consul(token=given["token"], consistency=given["consistency"])
    while True:
        index, found = client.health.service(name, index=index, wait="60s", passing=True)
        now = time.monotonic_ns()
        if bool(found) != seen:
            seen = bool(found)
            with said:
                print(name, int(seen), now, flush=True)
for name in given["names"]:
    threading.Thread(target=follow, args=(name,), daemon=True).start()
sys.stdin.read()
"""


class System(NamedTuple):
    """One way to hear of changes: a script for each host, run by the Python of the shim or by that of the benchmark."""

    name: str
    script: str
    consistency: str = ""

    def command(self, leader: int) -> list[str]:
        """To run in the namespaces of the host whose first process is `leader`: all, or its network alone."""
        inside = ["nsenter", "--target", str(leader)]
        if self.consistency:
            return [*inside, "--net", "--", sys.executable, "-c", self.script]
        return [*inside, "--all", "--", "/opt/outrider/venv/bin/python", "-c", self.script]


OUTRIDER = System("outrider", CATALOGUE)
SYSTEMS = (
    OUTRIDER,
    System("python-consul2, index=", BLOCKING, "default"),
    System("python-consul2, index=, stale", BLOCKING, "stale"),
)


class Watcher:
    """Tells when agents appear for, and vanish from, what asks on one host."""

    def __init__(self, fleet: Fleet, host: str, system: System, names: list[str]) -> None:
        self.host = host
        self._process = subprocess.Popen(
            system.command(fleet.lab.machines()[host].leader()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        token = fleet.tokens()["management"]["secret"] if system.consistency else ""
        given = {"names": names, "token": token, "consistency": system.consistency}
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        self._seen: Queue[tuple[str, bool, int]] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            name, there, when = line.split()
            self._seen.put((name, there == "1", int(when)))

    def wait_ready(self, names: list[str]) -> None:
        """Until it has seen each of them serve. Raises TimeoutError."""
        waited = set(names)
        while waited:
            name, there, _ = self._next(READY_S, f"{self.host} does not see {', '.join(sorted(waited))}")
            if there:
                waited.discard(name)

    def when(self, name: str, there: bool, since_ns: int) -> float:
        """Milliseconds from `since_ns` until this host saw it. Raises TimeoutError."""
        while True:
            seen, found, when = self._next(SEEN_S, f"{self.host} did not see {name} {'back' if there else 'gone'}")
            if (seen, found) == (name, there) and when >= since_ns:
                return (when - since_ns) / 1e6

    def _next(self, timeout_s: float, otherwise: str) -> tuple[str, bool, int]:
        try:
            return self._seen.get(timeout=timeout_s)
        except Empty:
            raise TimeoutError(f"{otherwise} within {timeout_s:g} s") from None

    def stop(self) -> None:
        """End it."""
        self._process.communicate(timeout=20)  # its standard input ends, and so does it


def seen_everywhere(fleet: Fleet, count: int) -> list[Row]:
    """kill -9 an instance; until the last host has it out of its answers, and until the last has it back."""
    victims = light_agents(fleet)
    rows: list[Row] = []
    for system in SYSTEMS:
        time.sleep(STEADY_S)
        rows += _seen_by(fleet, system, victims, count)
    fleet.wait_well()
    return rows


def _seen_by(fleet: Fleet, system: System, victims: dict[str, str], count: int) -> list[Row]:
    names = list(victims)
    watchers = {host: Watcher(fleet, host, system, names) for host in fleet.lab.machines()}
    own, gone, back = [], [], []
    try:
        for watcher in watchers.values():
            watcher.wait_ready(names)
        for number in range(count):
            if number and number % len(names) == 0:
                time.sleep(STEADY_S)
            name = names[number % len(names)]
            pid = process_of(fleet, name)
            since = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            seen = {host: watcher.when(name, False, since) for host, watcher in watchers.items()}
            own.append(seen[victims[name]])
            gone.append(max(seen.values()))
            back.append(max(watcher.when(name, True, since) for watcher in watchers.values()))
    finally:
        for watcher in watchers.values():
            watcher.stop()
    rows = [row("change seen on every host", system.name, "ms", gone)]
    if system is OUTRIDER:
        rows.append(row("the same change seen on its own host", system.name, "ms", own))
        rows.append(row("kill -9 to served again, on every host", system.name, "ms", back))
    return rows


def light_agents(fleet: Fleet) -> dict[str, str]:
    """Agents that start in a moment, having one instance and no model, and their hosts; hosts take turns."""
    _, rows = fleet.consul("lab1", "kv/outrider/fleet/?recurse")
    docs = [msgspec.json.decode(base64.b64decode(found["Value"]), type=AgentDoc) for found in rows]
    light = {doc.name for doc in docs if (doc.agent.module, doc.agent.mode) == LIGHT}
    hosts: dict[str, list[str]] = {}
    for found in fleet.status()["instances"]:
        if found["agent"] in light:
            hosts.setdefault(found["host"], []).append(found["agent"])
    fewest = min(len(agents) for agents in hosts.values())
    return {hosts[host][turn]: host for turn in range(fewest) for host in sorted(hosts)}


def process_of(fleet: Fleet, agent: str) -> int:
    """Process id on this machine of the agent's instance: the one that has its name and an address of this lab."""
    addresses = {f"OUTRIDER_ADDRESS={machine.address}".encode() for machine in fleet.lab.machines().values()}
    wanted = f"OUTRIDER_INSTANCE={agent}-1".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = set(path.read_bytes().split(b"\0"))
        except OSError:
            continue
        if wanted in variables and variables & addresses:
            return int(path.parent.name)
    raise LookupError(f"{agent} does not run")
