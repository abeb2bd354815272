"""Where a fault happens: a fleet, the dice that choose in it, and the means to hurt it and to undo that."""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct, field

from faults.observer import FENCED, SINGLETONS
from hosts.fleet import Fleet, until

HOSTS = ("lab1", "lab2", "lab3")  # the observer calls from lab4
FOUND_S = 30.0


class Scene(Struct):
    """A fleet, and the dice that choose in it. `long`: faults last as long as they do in the list of single ones.

    agent: whose holder is hurt where a fault hurts a holder's host; any singleton's if none is named
    consul_alone: for what must not come between another's stop and start of Consul, or snapshot and restore
    """

    fleet: Fleet
    rng: random.Random
    long: bool = False
    agent: str = ""
    over: threading.Event = field(default_factory=threading.Event)
    consul_alone: threading.Lock = field(default_factory=threading.Lock)

    def holder(self) -> tuple[str, str]:
        """Instance and host of a singleton's holder, where it may be hurt."""

        def found() -> list[tuple[str, str]]:
            rows = self.fleet.status("lab4")["instances"]
            names = (self.agent,) if self.agent else (*SINGLETONS, *FENCED)
            return [(r["instance"], r["host"]) for r in rows if r["agent"] in names and r["role"] == "holder"]

        there = until(lambda: [item for item in found() if item[1] in HOSTS], FOUND_S)
        return self.rng.choice(sorted(there))

    def host(self) -> str:
        """One that may be hurt."""
        return self.rng.choice(HOSTS)

    def leader(self) -> str:
        """The host whose Consul leads."""

        def found() -> list[str]:
            status, answer = self.consul("operator/raft/configuration?stale")
            return [str(server["Node"]) for server in answer["Servers"] if server["Leader"]] if status == 200 else []

        return until(found, FOUND_S)[0]

    def consul(self, path: str, *options: str, host: str = "lab4", method: str = "GET", data: Any = None) -> Any:
        """Ask Consul for management; (HTTP status, what it said), status 0 if it could not be asked."""
        try:
            return self.fleet.consul(host, path, *options, method=method, data=data)
        except (subprocess.CalledProcessError, LookupError):
            return 0, ""

    def shell(self, host: str, command: str) -> str:
        """Run it on a host; that it fails is no matter."""
        with contextlib.suppress(LookupError):
            return self.fleet.on(host, command, check=False)
        return ""

    def network(self, host: str, *command: str) -> str:
        """Run one of this machine's commands in a host's network; that it fails is no matter."""
        with contextlib.suppress(LookupError):
            leader = str(self.fleet.lab.machines()[host].leader())
            inside = ["nsenter", "--target", leader, "--net", "--", *command]
            return subprocess.run(inside, check=False, capture_output=True, text=True).stdout
        return ""

    def lasting(self, seconds: float) -> float:
        """As long as that in the list of single faults; among pairs and in quick tests for eight seconds at most."""
        return seconds if self.long else min(seconds, 8.0)

    @contextlib.contextmanager
    def until_over(self, seconds: float, undo: Callable[[], object]) -> Iterator[None]:
        """Do what the block does, wait, then undo it; at once after Ctrl-C or a failure."""
        try:
            yield
            self.over.wait(seconds)
        finally:
            undo()
