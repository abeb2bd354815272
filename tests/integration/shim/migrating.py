"""The agent Ledger on one host with a real shim, and migrations of it to another version."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from integration.shim.under_load import UnderLoad
from outrider.fleet.spec import Agent, Host
from outrider.migration.staged.ask import Plan, Wish, create, plans
from outrider.migration.staged.desk import Desk
from outrider.migration.staged.records import Given
from outrider.migration.staged.report import MigrationReport
from outrider.registry import kv
from outrider.registry.layout import (
    FLEET,
    HOSTS,
    MOVES,
    PLACEMENT,
    AgentDoc,
    HostDoc,
    MoveDoc,
    Placed,
    PlacementDoc,
)

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

LEDGER = Path(__file__).parents[1] / "ledger_agent.py"
QUICK = Given(canary=0.2, canary_s=0.5, verify_s=1.0, undecided="accept")
ENDED = ("finalised", "rolled_back", "cancelled", "held", "rehearsed")


def ledger(mode: Any, *, state: bool = True, **environment: str) -> Agent:
    return Agent(
        command=(sys.executable, str(LEDGER)),
        ports={"call": "auto"},
        mode=mode,
        state=state,
        environment=environment,
    )


class Fleet:
    """The agent Ledger on one host, and what is asked of it."""

    def __init__(self, host: ShimHost) -> None:
        self.host = host
        self.desk = Desk(host.consul.client)
        kv.put_docs(host.consul.client, [kv.Change(HOSTS + "local", HostDoc(Host("local")), 0)])

    def place(self, agent: Agent, count: int = 1) -> None:
        placement = PlacementDoc("Ledger", tuple(Placed(f"Ledger-{n}", "local", "v1") for n in range(1, count + 1)))
        self.host.docs["Ledger"] = (AgentDoc("Ledger", "test", agent, "v1"), placement)
        self.host.write()

    def publish(self, version: str, before: str) -> None:
        """Another document of the agent, as if somebody had written it: its version, and the one before."""
        doc, index = kv.get_doc(self.host.consul.client, FLEET + "Ledger", AgentDoc)
        assert doc
        doc = msgspec.structs.replace(doc, version=version, previous=doc.at(before))
        kv.put_docs(self.host.consul.client, [kv.Change(FLEET + "Ledger", doc, index)])

    def plan(
        self, agent: Agent, policy: Given = QUICK, source: str = "Ledger-1", version: str = "v2", **more: Any
    ) -> list[Plan]:
        docs = {"Ledger": AgentDoc("Ledger", "test", agent, version)}
        wish = Wish("test", ("Ledger",), source=source, docs=docs, policy=policy, **more)
        return plans(self.host.consul.client, wish)

    def migrate(self, agent: Agent, policy: Given = QUICK, source: str = "Ledger-1", **more: Any) -> str:
        return create(self.host.consul.client, self.plan(agent, policy, source, **more))[0].id

    def report(self, migration: str) -> MigrationReport:
        return msgspec.json.decode(self.host.request("GET", f"/v1/migrations/{migration}"), type=MigrationReport)

    def say(self, migration: str, action: str, **query: str) -> None:
        self.host.request("POST", f"/v1/migrations/{migration}/{action}?{urlencode({'by': 'test', **query})}")

    def end(self, migration: str, within_s: float = 40.0) -> MigrationReport:
        return self.host.wait(lambda: found if (found := self.report(migration)).state in ENDED else None, within_s)

    def placed(self) -> PlacementDoc:
        doc, _ = kv.get_doc(self.host.consul.client, PLACEMENT + "Ledger", PlacementDoc)
        assert doc
        return doc

    def keys(self) -> dict[str, MoveDoc]:
        """To states that move, by host and agent."""
        found = kv.list_docs(self.host.consul.client, MOVES, MoveDoc)
        return {name: doc for name, (doc, _) in found.docs.items()}

    def instances(self) -> list[tuple[str, str]]:
        return [(placed.instance, placed.version) for placed in self.placed().instances]

    def pid(self, instance: str) -> int:
        """Of the process of an instance; 0 while there is none."""
        reports = json.loads(self.host.request("GET", "/v1/status"))["instances"]
        return next((report["pid"] or 0 for report in reports if report["instance"] == instance), 0)


def serving(fleet: Fleet, call: Callable[..., Any]) -> None:
    fleet.host.start()
    fleet.host.wait(lambda: fleet.host.served("Ledger"))
    call("known")


def adding(call: Callable[..., Any]) -> UnderLoad[Any]:
    """Each number once: what is answered must be known in the end."""
    numbers = itertools.count()
    return UnderLoad(lambda: (number := next(numbers), call("add", {"number": number})["instance"]))
