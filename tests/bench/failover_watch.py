"""Who answers, and who is in the routing, as a lab's hosts see it; each tells it on the machine's one clock."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from queue import Empty, Queue

from hosts.fleet import Fleet

SEEN_S = 60.0
PYTHON = "/opt/outrider/venv/bin/python"
CALLER = """
import os, sys, threading, time
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
WATCHER = """
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


class Teller:
    """A program on a host that says something in a line now and then."""

    def __init__(self, fleet: Fleet, host: str, *words: str) -> None:
        self.host = host
        self._process = subprocess.Popen(
            ["nsenter", "--target", str(fleet.lab.machines()[host].leader()), "--all", "--", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: Queue[list[str]] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._take(line)

    def _take(self, line: str) -> None:
        self._lines.put(line.split())

    def next(self) -> list[str]:
        """Its next line. Raises TimeoutError."""
        try:
            return self._lines.get(timeout=SEEN_S)
        except Empty:
            raise TimeoutError(f"{self.host} says nothing within {SEEN_S:g} s") from None

    def stop(self) -> None:
        """End it: its standard input ends."""
        self._process.communicate(timeout=20)


class Caller(Teller):
    """Calls one agent from one host without end, and tells when another instance answers, or nobody."""

    def __init__(self, fleet: Fleet, host: str, agent: str) -> None:
        self.errors: list[str] = []
        super().__init__(fleet, host, PYTHON, "-c", CALLER, agent)

    def _take(self, line: str) -> None:
        if line.startswith("error "):
            self.errors.append(line.split(maxsplit=3)[3])
        else:
            super()._take(line)

    def after(self, epoch: int) -> tuple[str, int, int]:
        """The first answer under a later epoch: instance, epoch, monotonic ns. Raises TimeoutError."""
        while True:
            instance, said, when, *_ = self.next()
            if int(said) > epoch:
                return instance, int(said), int(when)


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

    def stop(self) -> None:
        """End them."""
        for caller in self.all:
            caller.stop()


class Watcher(Teller):
    """Tells when an instance appears in, and vanishes from, one host's lookups."""

    def __init__(self, fleet: Fleet, host: str, agent: str) -> None:
        super().__init__(fleet, host, PYTHON, "-c", WATCHER, agent)
        self._when, self._there = self._take_in(self.next())

    def _take_in(self, words: list[str]) -> tuple[int, set[str]]:
        return int(words[0]), set(words[1:])

    def wait(self, instance: str, *, there: bool) -> int:
        """Monotonic ns since when that is so. Raises TimeoutError."""
        while (instance in self._there) is not there:
            self._when, self._there = self._take_in(self.next())
        return self._when

    def catch_up(self) -> None:
        """Hear what it said up to now."""
        while not self._lines.empty():
            self._when, self._there = self._take_in(self.next())


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
