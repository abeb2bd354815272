"""Who calls, who asks for migrations, and what the agents have in the end: programs on lab hosts, past the engine."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from failover_watch import PYTHON
from msgspec import Struct, field

from hosts.fleet import Fleet

SLOT_NS = 5_000_000  # a call each: 200 a second; a call's number is the slot that it was due in
TOLD = "as it was told"  # what a bad version answers
TOKEN, LOGS, STATES = "/root/.bench-token", "/var/log/outrider/agents", "/var/lib/outrider-agents"
# Calls are sent when they are due, however long others take; times are Unix nanoseconds, as journals have them.
OBSERVER = """
import asyncio, json, os, sys, threading, time
os.environ["OUTRIDER_CALLS_TLS"] = "/etc/outrider/calls"
import outrider
agent, slot_ns, done, under_way = sys.argv[1], int(sys.argv[2]), threading.Event(), set()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
async def call(number):
    sent = time.time_ns()
    try:
        who, error = await outrider.acall(agent, "add", {"number": number}, timeout=5.0), ""
    except outrider.OutriderError as problem:
        who, error = "", problem.message
    print(json.dumps([number, sent, time.time_ns(), who, error]))
async def main():
    number = time.time_ns() // slot_ns
    while not done.is_set():
        number += 1
        if (early := number * slot_ns - time.time_ns()) > 0:
            await asyncio.sleep(early / 1e9)
        task = asyncio.create_task(call(number))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
asyncio.run(main())
"""
# One order a line, one answer a line: it asks as the command line does, and reads the journal until it is over.
OPERATOR = """
import json, sys, time
from contextlib import suppress
from msgspec import convert, to_builtins
from msgspec.structs import replace
from outrider.errors import MigrationRefused
from outrider.migration.publication import Target
from outrider.migration.staged.ask import Wish, create, plans
from outrider.migration.staged.desk import Desk
from outrider.migration.staged.records import Given
from outrider.registry.client import connect
from outrider.registry.kv import Change, get_doc, put_docs
from outrider.registry.layout import FLEET, PLACEMENT, AgentDoc, PlacementDoc
consul = connect(Target(consul_token_file=sys.argv[1]).address())
desk = Desk(consul)
def settled(agent):
    placed = get_doc(consul, PLACEMENT + agent, PlacementDoc)[0]
    found = json.loads(consul.get("/v1/catalog/service/" + agent).body)
    there = {(service["ServiceID"], service["Node"]) for service in found}
    return there == {(one.instance, one.host) for one in placed.instances} and placed
def published(agent, version, environment):
    doc = get_doc(consul, FLEET + agent, AgentDoc)[0]
    kept = {name: value for name, value in doc.agent.environment.items() if not name.startswith("FAILS")}
    return replace(doc, version=version, previous=None, agent=replace(doc.agent, environment={**kept, **environment}))
def put_back(agent):
    doc, index = get_doc(consul, FLEET + agent, AgentDoc)
    put_docs(consul, [Change(FLEET + agent, replace(doc.previous, previous=None), index)])
for line in sys.stdin:
    order = json.loads(line)
    agent = order["agent"]
    while not (placed := settled(agent)):
        time.sleep(0.02)
    if order["do"] == "where":
        print(json.dumps(to_builtins(placed.instances)), flush=True)
        continue
    docs = {agent: published(agent, order["version"], order["environment"])} if order["version"] else {}
    asked, asked_back = time.time(), 0.0
    policy = convert(order["policy"], Given)
    wish = Wish("bench", (agent,), to=order["to"], source=order["source"], docs=docs, policy=policy)
    migration = create(consul, plans(consul, wish))[0].id
    while True:
        journal = desk.get(migration)
        last = journal.entries[-1]
        if last.what in ("ended", "held"):
            break
        if order["back"] and not asked_back and last.step in ("shift", "verify"):
            asked_back = time.time()
            with suppress(MigrationRefused):  # its verdict was quicker
                desk.rollback(migration, "bench")
        time.sleep(0.02)
    if docs and last.outcome == "rolled_back":
        put_back(agent)
    said = {"id": migration, "asked": asked, "asked_back": asked_back, "entries": to_builtins(journal.entries)}
    said |= {"source": journal.spec.source.instance, "target": journal.spec.target.instance}
    print(json.dumps(said), flush=True)
"""


class Seen(Struct, array_like=True):
    """One call: its number, when it was sent and answered (Unix ns), by whom, and why not."""

    number: int
    sent: int
    got: int
    instance: str
    error: str


class Migrated(Struct):
    """One migration. Times are Unix seconds; `asked_back` 0: nobody did."""

    id: str
    asked: float
    asked_back: float
    source: str
    target: str
    entries: list[dict[str, Any]]

    def at(self, what: str) -> float | None:
        """When a step was begun, or another entry written; None if it was not."""
        found = (entry["at"] for entry in self.entries if what in (entry.get("step"), entry["what"]))
        return next(found, None)

    @property
    def outcome(self) -> str:
        """How it ended: finalised, rolled_back, cancelled, or held."""
        return str(self.entries[-1].get("outcome") or self.entries[-1]["what"])


class Observed(Struct):
    """What the observer saw, and which numbers are in the agents' state or logs more or less often than once."""

    calls: list[Seen]
    lost: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)


def on_host(fleet: Fleet, host: str, script: str, *words: str) -> list[str]:
    """The command that runs a program there."""
    inside = ["nsenter", "--target", str(fleet.lab.machines()[host].leader()), "--all", "--"]
    return [*inside, PYTHON, "-c", script, *words]


class Operator:
    """Asks for migrations from a host, one after the other."""

    def __init__(self, fleet: Fleet, host: str) -> None:
        fleet.put(host, TOKEN, fleet.tokens()["management"]["secret"])
        self._process = subprocess.Popen(
            on_host(fleet, host, OPERATOR, TOKEN), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _order(self, **order: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline() or "null")

    def where(self, agent: str) -> list[tuple[str, str]]:
        """Instance and host of each, once what it had before has gone."""
        return [(placed["instance"], placed["host"]) for placed in self._order(do="where", agent=agent)]

    def migrate(
        self, agent: str, source: str, to: str, policy: dict[str, Any], *,
        version: str = "", back: bool = False, **environment: str,
    ) -> Migrated:  # fmt: skip
        """To its end. `version`: a new one, with that environment; `back`: asked for as soon as it is judged."""
        words = {"agent": agent, "source": source, "to": to, "policy": policy, "version": version, "back": back}
        return Migrated(**self._order(do="migrate", environment=environment, **words))

    def stop(self) -> None:
        """End it: its standard input ends."""
        self._process.communicate(timeout=20)


class Observer:
    """Calls one agent from one host, 200 times a second."""

    def __init__(self, fleet: Fleet, host: str, agent: str, log: Path) -> None:
        self._fleet, self._agent, self._log = fleet, agent, log
        self._file = log.open("w")
        command = on_host(fleet, host, OBSERVER, agent, str(SLOT_NS))
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self._file, text=True)

    def stop(self, state_of: tuple[str, str] | None) -> Observed:
        """End it, and compare. `state_of`: instance and host that have the state; None: the logs of all hosts tell."""
        self._process.communicate(timeout=30)
        self._file.close()
        calls = [Seen(*json.loads(line)) for line in self._log.read_text().splitlines()]
        numbers = {call.number for call in calls}
        kept = Counter(number for number in self._accepted(state_of) if number in numbers)
        acknowledged = [call.number for call in calls if not call.error]
        lost = [number for number in acknowledged if not kept[number]]
        return Observed(calls, lost, [number for number, count in kept.items() if count > 1])

    def _accepted(self, state_of: tuple[str, str] | None) -> list[int]:
        files, hosts = f"{LOGS}/{self._agent}-*.log*", list(self._fleet.lab.machines())
        if state_of:
            files, hosts = f"{STATES}/{state_of[0]}/accepted", [state_of[1]]
        text = "".join(self._fleet.on(name, f"cat {files} 2>/dev/null; true") for name in hosts)
        return [int(line) for line in text.splitlines() if line.isdecimal()]
