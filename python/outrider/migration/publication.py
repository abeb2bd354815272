"""Publishing a fleet: what the module `fleet` does, as calls with typed options and results."""

from __future__ import annotations

import getpass
import os
import time
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, field

from outrider.errors import ConsulUnreachable, FleetError, OutriderError, RolloutFailed
from outrider.fleet.effective import agent_on, may_run_on
from outrider.fleet.ports import MAIN
from outrider.fleet.spec import Host
from outrider.migration.changes import AgentChange, Documents, Goal, changes, goals
from outrider.migration.compile import (
    CodeSource,
    Definition,
    code_sources,
    compile_fleet,
    read_definition,
    read_hosts,
)
from outrider.migration.diff import Shown, shown, shown_hosts, summary
from outrider.migration.driver import Driver
from outrider.migration.host_docs import HostChange, host_changes, plain, read_host_docs, said, write_host_docs
from outrider.migration.report import Report
from outrider.migration.store import ConsulStore, Seen
from outrider.registry.address import Address
from outrider.registry.client import connect
from outrider.registry.layout import RUN_LOCK, HostDoc, service_name
from outrider.registry.lock import RunLock
from outrider.registry.published import is_whole, publication_went_through


class LocalPort(Struct, frozen=True):
    """The number that a needed agent's main port has everywhere, and how many instances there are."""

    port: int
    instances: int


class MayRun(Struct, frozen=True):
    """The agents that may run on a host, the names of their services in Consul, and the ports of what they need."""

    agents: list[str]
    services: list[str]
    local_ports: dict[str, LocalPort]


class Validated(Struct, frozen=True):
    """A fleet file that is right. `hosts`: what each host may run. `changed` is there for Ansible."""

    definition: Definition
    sources: list[CodeSource]
    hosts: dict[str, MayRun]
    changed: bool = False


def validate(path: Path, hosts: list[dict[str, Any]]) -> Validated:
    """Read a fleet file and check it against the hosts of the inventory. Raises FleetError with all problems."""
    definition = compile_fleet(path, hosts)
    return Validated(definition, code_sources(definition, path.parent), may_run(definition))


def may_run(definition: Definition) -> dict[str, MayRun]:
    """Host to what may run there: it has their code and may register them, wherever they run now."""
    found = {}
    for host in definition.hosts:
        agents = sorted(name for name, agent in definition.agents.items() if may_run_on(agent, host))
        found[host.name] = MayRun(agents, [service_name(agent) for agent in agents], local_ports(definition, agents))
    return found


def local_ports(definition: Definition, agents: list[str]) -> dict[str, LocalPort]:
    """By needed agent. One whose main port differs between hosts, or is chosen as it starts, has none."""
    found = {}
    for name in agents:
        agent = definition.agents[name]
        for entry in agent.on_host() or [""]:
            for need in agent_on(agent, entry).need_list():
                needed = definition.agents[need.agent]
                numbers = {agent_on(needed, place).ports.get(MAIN) for place in needed.on_host() or [""]}
                if len(numbers) == 1 and isinstance(number := numbers.pop(), int):
                    found[need.agent] = LocalPort(number, needed.instance_count())
    return found


def details(error: OutriderError) -> dict[str, Any]:
    """What a failed module returns beside the message."""
    if isinstance(error, FleetError):
        return {"problems": error.problems}
    if isinstance(error, RolloutFailed):
        return {"operations": error.done, "not_done": error.not_done, "changed": True}
    return {}


class Target(Struct, frozen=True):
    """Which Consul. Names are those of the modules' options."""

    consul_host: str = "127.0.0.1"
    consul_port: int = 8500
    consul_scheme: Literal["http", "https"] = "http"
    consul_token: str | None = None
    consul_token_file: str | None = None
    consul_ca_file: str | None = None

    def address(self) -> Address:
        """As an Address, with the token read. Raises ConsulError if its file cannot be."""
        address = Address(
            self.consul_host,
            self.consul_port,
            self.consul_scheme,
            ca_file=self.consul_ca_file or "",
            token=self.consul_token or "",
        )
        return address.with_token_file(self.consul_token_file) if self.consul_token_file else address


class Order(Struct, frozen=True):
    """What to publish. `definition`: as compiled, in plain JSON; `hosts`: instead of those that are in it."""

    definition: dict[str, Any] | None = None
    releases: dict[str, str] = field(default_factory=dict)
    hosts: list[dict[str, Any]] | None = None
    prune: bool = True
    wait_s: float = 120.0
    parallel: int = 8
    state: Literal["present", "absent"] = "present"


class Counts(Struct):
    """Agents by what happened to them."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0


class Result(Struct):
    """What a publication did, or would do."""

    changed: bool
    agents: Counts
    restarted: list[str]
    operations: list[str]
    diff: list[Shown]
    seconds: float
    warnings: list[str] = field(default_factory=list)


def predict(target: Target, order: Order) -> Result:
    """What `publish` would do. Without a Consul it compares with nothing, and warns. Raises FleetError, ConsulError."""
    started = time.monotonic()
    consul = connect(target.address())
    store = ConsulStore(consul)
    warnings = []
    known: dict[str, HostDoc] = {}
    try:
        store.read()
        known = plain(read_host_docs(consul))
    except ConsulUnreachable as error:
        warnings.append(f"{error.message}; predicted as if nothing were published yet")
    found = changes(store.docs, _goals(order, store.docs, known))
    hosts = host_changes(known, _hosts(order), prune=order.prune)
    report = Report([summary(change) for change in found if change.kind != "unchanged"], warnings=warnings)
    report.restarted = [instance for change in found for instance in change.restarts]
    return _result(found, hosts, report, time.monotonic() - started)


def publish(target: Target, order: Order) -> Result:
    """Write what differs and wait until it is well.

    Raises FleetError before anything is changed, Locked if another run is at work, RolloutFailed, ConsulError.
    """
    started = time.monotonic()
    consul = connect(target.address())
    store = ConsulStore(consul)
    known = plain(read_host_docs(consul))
    found = changes(store.read(), _goals(order, store.docs, known))
    hosts = host_changes(known, _hosts(order), prune=order.prune)
    unchanged = not hosts and all(change.kind == "unchanged" for change in found)
    if unchanged and (is_whole(consul) or not _is_whole_fleet(order)):
        # No lock: it costs Consul four writes, and a run that changes nothing disturbs nobody.
        return _result(found, hosts, Report(warnings=_unwell(store, found)), time.monotonic() - started)
    with RunLock(consul, RUN_LOCK, _who()) as lock:
        store = ConsulStore(consul, lock)
        wanted = _goals(order, store.read(), plain(read_host_docs(consul)))
        hosts = write_host_docs(consul, lock, _hosts(order), prune=order.prune)
        found = changes(store.docs, wanted)
        report = Driver(store, wait_s=order.wait_s).run(found, wanted, order.parallel)
        if _is_whole_fleet(order) or is_whole(consul):
            publication_went_through(consul, lock.guard)
        report.warnings += _unwell(store, [change for change in found if change.kind == "unchanged"])
    return _result(found, hosts, report, time.monotonic() - started)


def _is_whole_fleet(order: Order) -> bool:
    """Whether nothing but what is ordered is to be in Consul. Without `prune` there may be more, and Consul lost it."""
    return order.prune or order.state == "absent"


def _goals(order: Order, current: dict[str, Documents], known: dict[str, HostDoc]) -> dict[str, Goal]:
    _refuse_migrating(current)
    if order.state == "absent":
        return dict.fromkeys(current, Goal())
    definition = read_definition(order.definition)
    closed = {name: doc.closed for name, doc in known.items() if doc.closed}
    return goals(definition, order.releases, current, _hosts(order), prune=order.prune, closed=closed)


def _refuse_migrating(current: dict[str, Documents]) -> None:
    """A run would place anew what a migration has in two places, and is about to judge."""
    moving = {name: docs.placement.migration for name, docs in current.items() if docs.placement}
    problems = [f"{name} is being moved by migration {id_}" for name, id_ in sorted(moving.items()) if id_]
    if problems:
        raise FleetError(problems, hint="wait for it (`outrider migrate watch ID`), or end it: `migrate rollback ID`")


def _hosts(order: Order) -> tuple[Host, ...]:
    """The hosts to place on: none when the fleet shall go."""
    if order.state == "absent":
        return ()
    return read_definition(order.definition).hosts if order.hosts is None else tuple(read_hosts(order.hosts))


def _who() -> str:
    """Who runs this, for the other one who is kept out."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _unwell(store: ConsulStore, unchanged: list[AgentChange]) -> list[str]:
    """What was published before and does not pass: not this run's doing, but worth a word."""
    placed = [p for change in unchanged for p in change.after.instances if p.state == "run"]
    if not placed:
        return []
    sight = store.observe({p.host for p in placed})
    unwell = [p.instance for p in placed if not _passes(sight.get((p.instance, p.host)))]
    few = ", ".join(unwell[:5]) + (", ..." if len(unwell) > 5 else "")
    return [f"unchanged, but not passing: {few} ({len(unwell)} of {len(placed)})"] if unwell else []


def _passes(seen: Seen | None) -> bool:
    return seen is not None and seen.status != "critical"


def _result(found: list[AgentChange], hosts: list[HostChange], report: Report, seconds: float) -> Result:
    kinds = [change.kind for change in found]
    counts = Counts(*(kinds.count(kind) for kind in ("added", "changed", "removed", "unchanged")))
    changed = bool(hosts) or len(kinds) != counts.unchanged
    done = said(hosts) + report.operations
    diff = shown(found) + shown_hosts(hosts)
    return Result(changed, counts, report.restarted, done, diff, round(seconds, 3), report.warnings)
