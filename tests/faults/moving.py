"""One migration of an agent of the small fleet, between hosts that may be hurt, as an operator sees it."""

from __future__ import annotations

import json
import random
import time
from typing import Any

from faults.scene import HOSTS, Scene
from hosts.fleet import Fleet, until
from outrider.registry.layout import PLACER_LOCK

OBSERVER = "lab4"  # it is hurt in no test
ENDED = ("finalised", "rolled_back", "cancelled", "held", "broken")
END_S = 120.0
SEED = 2


class Moving:
    """Asked for by `ask`. `driver` is the host whose shim carries it out; it is neither end.

    operator: where people steer it, the host of a Consul server that is not hurt
    """

    def __init__(self, fleet: Fleet, agent: str) -> None:
        self.fleet, self.agent = fleet, agent
        self.scene = Scene(fleet, random.Random(SEED))
        self.id = ""
        rows = fleet.status(OBSERVER)["instances"]
        placed = {row["host"]: row["instance"] for row in rows if row["agent"] == agent}
        self.driver = self.operator = self._other_driver(frozenset(placed) if len(placed) == 1 else frozenset())
        ends = [host for host in HOSTS if host != self.driver]
        self.source = next(host for host in (*ends, OBSERVER) if host in placed)
        self.instance = placed[self.source]
        self.target = next(host for host in ends if host != self.source)

    def _other_driver(self, but: frozenset[str]) -> str:
        """Who is elected; first another one, if it is one of those."""
        while (driver := str(until(self._elected, END_S)["host"])) in but:
            self.scene.shell(driver, "systemctl restart outriderd")
            time.sleep(1)
        return driver

    def _elected(self) -> Any:
        status, said = self.scene.consul(f"kv/{PLACER_LOCK}?raw")
        return status == 200 and "host" in said and said

    def ask(self, *options: str) -> None:
        """Returns at once."""
        words = f"--instance {self.instance} --to {self.target} --override test --detach --json {' '.join(options)}"
        said = self.fleet.on(self.operator, f"outrider migrate run {self.agent} {words}")
        self.id = json.loads(said)["plans"][0]["id"]

    def report(self) -> dict[str, Any]:
        """What `outrider migrate show` says; nothing while it cannot."""
        said = self.fleet.on(self.operator, f"outrider migrate show {self.id} --json", check=False)
        return json.loads(said) if said.startswith("{") else {"state": "", "waits": "", "rows": []}

    def rows(self, what: str) -> list[dict[str, Any]]:
        """The entries of its journal that say that."""
        return [row for row in self.report()["rows"] if row["what"] == what]

    def begun(self, step: str) -> None:
        """Wait until it is."""
        until(lambda: self.rows(step), END_S, self.text)

    def ended(self) -> dict[str, Any]:
        """Its report, once it has ended, or is held."""
        return until(lambda: found if (found := self.report())["state"] in ENDED else None, END_S, self.text)

    def say(self, verb: str, *words: str) -> None:
        """As an operator."""
        command = f"outrider migrate {verb} {self.id} {' '.join(words)}"
        until(lambda: "is noted" in self.scene.shell(self.operator, command), END_S)

    def text(self) -> str:
        """For people."""
        return self.scene.shell(self.operator, f"outrider migrate show {self.id}; true")
