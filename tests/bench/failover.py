"""Failover on lab hosts: how long callers are without a singleton when its holder is killed, hangs, or loses its host.

    python tests/bench/failover.py [--only kill,hang,routing,host] [--count 100]

Needs root. Every host calls the singleton 200 times a second; all hosts share the machine's monotonic clock.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, Queue

sys.path.append(str(Path(__file__).resolve().parent.parent))

from harness import Row, row, write
from lab_rows import freeze, healthy, kill, leader, running_fleet

from hosts.fleet import Fleet, until
from hosts.lab.image import CHECKOUT

FLEET_FILE = CHECKOUT / "tests/faults/fleet.yml"
SINGLETON = "Counter"
SEEN_S = 30.0
CALLER = """
import json, os, sys, threading, time
os.environ["OUTRIDER_CALLS_TLS"] = "/etc/outrider/calls"
import outrider
agent, done, last = sys.argv[1], [], None
threading.Thread(target=lambda: done.append(sys.stdin.read()), daemon=True).start()
while not done:
    try:
        said = outrider.call(agent, "who", timeout=5.0)
    except outrider.OutriderError as error:
        print("error", 0, time.monotonic_ns(), repr(str(error)), flush=True)
    else:
        if (said["instance"], said["epoch"]) != last:
            last = said["instance"], said["epoch"]
            print(said["instance"], said["epoch"], time.monotonic_ns(), said["host"], flush=True)
    time.sleep(0.004)
"""


class Caller:
    """Calls one agent from one host without end, and tells when another instance answers, or nobody."""

    def __init__(self, fleet: Fleet, host: str, agent: str) -> None:
        self.host = host
        self.errors: list[str] = []
        command = ["nsenter", "--target", str(fleet.lab.machines()[host].leader()), "--all", "--"]
        self._process = subprocess.Popen(
            [*command, "/opt/outrider/venv/bin/python", "-c", CALLER, agent],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answers: Queue[tuple[str, int, int]] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            name, epoch, when, detail = line.split(maxsplit=3)
            if name == "error":
                self.errors.append(detail)
            else:
                self._answers.put((name, int(epoch), int(when)))

    def after(self, epoch: int) -> tuple[str, int, int]:
        """The first answer under a later epoch: instance, epoch, monotonic ns. Raises TimeoutError."""
        while True:
            try:
                answer = self._answers.get(timeout=SEEN_S)
            except Empty:
                raise TimeoutError(f"{self.host} got no answer under another epoch within {SEEN_S:g} s") from None
            if answer[1] > epoch:
                return answer

    def stop(self) -> None:
        """End it."""
        self._process.communicate(timeout=20)


class Callers:
    """One on each host."""

    def __init__(self, fleet: Fleet, agent: str, hosts: list[str] | None = None) -> None:
        self.all = [Caller(fleet, host, agent) for host in hosts or list(fleet.lab.machines())]
        self.epoch = 0
        self.instance = ""
        self.settle()

    def settle(self) -> list[int]:
        """Wait until every host is answered under a later epoch than before; when each was, in monotonic ns."""
        answers = [caller.after(self.epoch) for caller in self.all]
        self.instance, self.epoch, _ = max(answers, key=lambda answer: answer[1])
        return [when for _, _, when in answers]

    @property
    def errors(self) -> int:
        """Calls that failed, on all hosts."""
        return sum(len(caller.errors) for caller in self.all)

    def stop(self) -> None:
        """End them."""
        for caller in self.all:
            caller.stop()


def pid_of(fleet: Fleet, instance: str) -> int:
    """Process id on this machine of an instance: the one that has its name and an address of this lab."""
    addresses = {f"OUTRIDER_ADDRESS={machine.address}".encode() for machine in fleet.lab.machines().values()}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = set(path.read_bytes().split(b"\0"))
        except OSError:
            continue
        if f"OUTRIDER_INSTANCE={instance}".encode() in variables and variables & addresses:
            return int(path.parent.name)
    raise LookupError(f"{instance} does not run")


def ready(fleet: Fleet) -> bool:
    """Every instance passes, as every host sees it."""
    views = [fleet.status(host)["instances"] for host in fleet.lab.machines()]
    return all(item["status"] == "passing" for view in views for item in view)


def holder_is(fleet: Fleet, number: int, case: str, count: int) -> list[Row]:
    """Send a signal to the holder's process, again and again; until it is answered under the next epoch."""
    callers = Callers(fleet, SINGLETON)
    first, last = [], []
    try:
        for _ in range(count):
            until(lambda: ready(fleet), 60, fleet.what_is_wrong)
            pid = pid_of(fleet, callers.instance)
            since = time.monotonic_ns()
            os.kill(pid, number)
            seen = callers.settle()
            first.append((min(seen) - since) / 1e6)
            last.append((max(seen) - since) / 1e6)
    finally:
        callers.stop()
    for caller in callers.all:
        for error in caller.errors:
            print(f"{case}: {caller.host}: {error}")
    return [
        row(case, "outrider", "ms", first),
        row(f"{case}, on every host", "outrider", "ms", last),
        row(f"{case}: failed calls", "outrider", "count", [callers.errors]),
    ]


def out_of_routing(fleet: Fleet, count: int, trouble: str = "") -> list[Row]:
    """Kill an instance of a replicated agent; until no host's lookup names it any more. Optionally without a leader."""
    gone = []
    for turn in range(count):
        until(lambda: healthy(fleet) and ready(fleet), 90, fleet.what_is_wrong)
        watchers = [InstanceWatcher(fleet, host, "Echo") for host in fleet.lab.machines()]
        victims = sorted(item["instance"] for item in fleet.status()["instances"] if item["agent"] == "Echo")
        leading = leader(fleet)
        hosts = {item["instance"]: item["host"] for item in fleet.status()["instances"]}
        victims = [name for name in victims if hosts[name] != leading] if trouble else victims
        victim = victims[turn % len(victims)]
        for watcher in watchers:
            watcher.wait(victim, there=True)
        pid = pid_of(fleet, victim)
        if trouble == "killed":
            kill(fleet, leading)
        elif trouble == "frozen":
            freeze(fleet, leading, 6.0)
        since = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        gone.append(max(watcher.wait(victim, there=False) - since for watcher in watchers) / 1e6)
        for watcher in watchers:
            watcher.stop()
    case = "out of routing" + (f", leader {trouble}" if trouble else "")
    return [row(case, "outrider", "ms", gone)]


WATCHED = """
import sys, threading, time
from pathlib import Path
from outrider.discovery.reader import Catalogue
done, seen = [], None
threading.Thread(target=lambda: done.append(sys.stdin.read()), daemon=True).start()
reader = Catalogue(Path("/run/outrider"))
while not done:
    reader.refresh()
    now = {i.instance for i in reader.lookup(sys.argv[1]).instances}
    if now != seen:
        seen = now
        print(time.monotonic_ns(), *sorted(now), flush=True)
    time.sleep(0.001)
"""


class InstanceWatcher:
    """Tells when an instance appears in, and vanishes from, one host's lookups."""

    def __init__(self, fleet: Fleet, host: str, agent: str) -> None:
        command = ["nsenter", "--target", str(fleet.lab.machines()[host].leader()), "--all", "--"]
        self._process = subprocess.Popen(
            [*command, "/opt/outrider/venv/bin/python", "-c", WATCHED, agent],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._seen: Queue[tuple[int, set[str]]] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            when, *names = line.split()
            self._seen.put((int(when), set(names)))

    def wait(self, instance: str, *, there: bool) -> int:
        """Monotonic ns at which that was first so. Raises TimeoutError."""
        while True:
            try:
                when, names = self._seen.get(timeout=SEEN_S)
            except Empty:
                raise TimeoutError(f"{instance} is not {'there' if there else 'gone'} within {SEEN_S:g} s") from None
            if (instance in names) is there:
                return when

    def stop(self) -> None:
        """End it."""
        self._process.communicate(timeout=20)


def host_lost(fleet: Fleet, count: int) -> list[Row]:
    """Power a host off that has a holder; until the next holder answers, by whether the host led Consul."""
    found: dict[str, list[float]] = {"": [], ", the Consul leader's": []}
    for _ in range(count):
        until(lambda: healthy(fleet) and ready(fleet), 120, fleet.what_is_wrong)
        held = next(i for i in fleet.status()["instances"] if i["agent"] == SINGLETON and i["role"] == "holder")
        others = [host for host in fleet.lab.machines() if host != held["host"]]
        callers = Callers(fleet, SINGLETON, others)
        led = ", the Consul leader's" if leader(fleet) == held["host"] else ""
        since = time.monotonic_ns()
        fleet.lab.machines()[held["host"]].power_off()
        seen = callers.settle()
        found[led].append((min(seen) - since) / 1e6)
        callers.stop()
        fleet.lab.start(held["host"])
        fleet.lab.wait([held["host"]])
    return [row(f"host lost singleton{led}", "outrider", "ms", times) for led, times in found.items() if times]


def main() -> None:
    """Run the cases that are named, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="kill,hang,routing,host")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15, help="of what takes a host, or Consul's leader")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with running_fleet(fleet_file=str(FLEET_FILE)) as fleet:
        for case in arguments.only.split(","):
            if case == "kill":
                rows += holder_is(fleet, signal.SIGKILL, "singleton kill -9", arguments.count)
            elif case == "hang":
                rows += holder_is(fleet, signal.SIGSTOP, "hang", max(3, arguments.count // 3))
            elif case == "routing":
                rows += out_of_routing(fleet, arguments.count)
                rows += out_of_routing(fleet, arguments.rounds, "killed")
                rows += out_of_routing(fleet, arguments.rounds, "frozen")
            elif case == "host":
                rows += host_lost(fleet, arguments.rounds)
    write("failover", rows)


if __name__ == "__main__":
    main()
