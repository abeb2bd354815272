"""What agents and operators do all the time, on lab hosts: lookups in the catalogue and writes to Consul's KV."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from hosts.fleet import Fleet

LOOKUPS = """
import json, sys, threading, time
import outrider
agents = json.load(open("/root/.agents"))
count = failed = 0
slowest = 0.0
done = []
threading.Thread(target=lambda: done.append(sys.stdin.read()), daemon=True).start()
print("ready", flush=True)
while not done:
    for agent in agents:
        began = time.perf_counter()
        try:
            found = outrider.lookup(agent)
        except outrider.OutriderError:
            found = ()
        slowest = max(slowest, time.perf_counter() - began)
        count += 1
        failed += not found
    time.sleep(0.002)
print(json.dumps({"count": count, "failed": failed, "slowest_ms": slowest * 1000}))
"""

WRITES = """
import http.client, json, sys, threading, time
token = open("/root/.token").read()
done = []
threading.Thread(target=lambda: done.append(sys.stdin.read()), daemon=True).start()
count = refused = 0
last = time.monotonic()
gap = 0.0
print("ready", flush=True)
while not done:
    try:
        line = http.client.HTTPConnection("127.0.0.1", 8500, timeout=2)
        line.request("PUT", "/v1/kv/outrider/test/writes", str(count), {"X-Consul-Token": token})
        well = line.getresponse().status == 200
        line.close()
    except OSError:
        well = False
    now = time.monotonic()
    if well:
        count, gap, last = count + 1, max(gap, now - last), now
    else:
        refused += 1
    time.sleep(0.02)
print(json.dumps({"count": count, "failed": refused, "gap_ms": gap * 1000}))
"""


class Measured(NamedTuple):
    """Lookups over all hosts, and writes through the client."""

    lookups: int
    failed: int
    slowest_ms: float
    writes: int
    write_gap_ms: float


class Load:
    """Runs on the given hosts between `start` and `stop`."""

    def __init__(self, fleet: Fleet, lookups_on: list[str], writes_on: str) -> None:
        self._fleet = fleet
        agents = sorted({row["agent"] for row in fleet.status()["instances"]})
        for host in lookups_on:
            fleet.put(host, "/root/.agents", json.dumps(agents))
        fleet.put(writes_on, "/root/.token", fleet.tokens()["management"]["secret"])
        self._lookups = [self._start(host, LOOKUPS) for host in lookups_on]
        self._writes = self._start(writes_on, WRITES)

    def _start(self, host: str, script: str) -> subprocess.Popen[str]:
        inside = ["nsenter", "--target", str(self._fleet.lab.machines()[host].leader()), "--all", "--"]
        process = subprocess.Popen(
            [*inside, "/opt/outrider/venv/bin/python", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def stop(self) -> Measured:
        """End it; what was measured."""
        found = []
        for process in [*self._lookups, self._writes]:
            output, _ = process.communicate(timeout=30)  # its standard input ends, and so does it
            found.append(json.loads(output.strip().splitlines()[-1]))
        writes = found.pop()
        return Measured(
            sum(row["count"] for row in found),
            sum(row["failed"] for row in found),
            max(row["slowest_ms"] for row in found),
            writes["count"],
            writes["gap_ms"],
        )


@contextmanager
def load(fleet: Fleet, lookups_on: list[str], writes_on: str) -> Iterator[list[Measured]]:
    """While the block runs. The list has the measurement afterwards."""
    running = Load(fleet, lookups_on, writes_on)
    measured: list[Measured] = []
    try:
        yield measured
    finally:
        measured.append(running.stop())
