"""A state of agents that is wanted, beside what is there: what is to be migrated, and what is under way."""

from __future__ import annotations

import getpass
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct, field

from outrider.errors import MigrationRefused, OutriderError, UnknownAgent
from outrider.migration.compile import agent_docs, read_definition
from outrider.migration.staged.ask import Wish
from outrider.migration.staged.plan import Fleet
from outrider.migration.staged.records import Given, Journal, Resolution, Undecided
from outrider.registry.layout import AgentDoc, Placed

POLICY = ("canary", "canary_s", "verify_s", "undecided", "approvals")


class Order(Struct, frozen=True):
    """What the module is asked for. Names are those of its options."""

    agents: tuple[str, ...] | None = None
    tier: str | None = None
    host: str | None = None
    migration: str | None = None
    to: str | None = None
    instance: str | None = None
    definition: dict[str, Any] | None = None
    releases: dict[str, str] = field(default_factory=dict)
    canary: float | None = None
    canary_s: float | None = None
    verify_s: float | None = None
    undecided: Undecided | None = None
    approvals: int | None = None
    override: str = ""
    readable: bool | None = None
    releases_dir: str = ""
    why: str = ""
    resolve: Literal["keep", "back"] | None = None
    accept_loss: bool | None = None
    wait_s: float = 600.0
    state: Literal["planned", "rehearsed", "staged", "cutover", "verified", "finalised", "rolled_back", "absent"] = (
        "finalised"
    )

    @property
    def rehearse(self) -> bool:
        """Whether nothing is to be cut over."""
        return self.state == "rehearsed"


def resolution(order: Order) -> Resolution:
    """What is to become of one that is held. Raises MigrationRefused for what does not fit together."""
    problems = [] if order.migration else ["resolve decides about one migration, and none is named: migration=ID"]
    if order.accept_loss and order.resolve != "back":
        problems.append("accept_loss is a way back: resolve=back")
    if order.accept_loss and not order.why:
        problems.append("accept_loss wants a reason, for others to read: said=TEXT")
    if problems or order.resolve is None:
        raise MigrationRefused(problems)
    return "accept_loss" if order.accept_loss else order.resolve


def documents(order: Order, fleet: Fleet) -> dict[str, AgentDoc]:
    """The definition's documents of agents that are published. Raises FleetError, ReleaseError."""
    if order.definition is None:
        return {}
    found = agent_docs(read_definition(order.definition), order.releases)
    return {name: doc for name, doc in found.items() if name in fleet.agents}


def selected(order: Order, fleet: Fleet) -> list[str]:
    """The agents that are meant, whether they are there already or not. Raises UnknownAgent, MigrationRefused."""
    if order.agents is None and not (order.tier or order.host or order.definition):
        raise MigrationRefused(["neither agents, a tier, a host, a migration nor a definition is named"])
    if order.host and order.host not in fleet.hosts:
        raise OutriderError(f"there is no host {order.host}; there are: {', '.join(sorted(fleet.hosts)) or 'none'}")
    names = sorted(fleet.placements.keys() & fleet.agents.keys()) if order.agents is None else list(order.agents)
    if unknown := [name for name in names if name not in fleet.agents]:
        raise UnknownAgent(f"no agent {', '.join(unknown)} is published", hint="publish it first, with site.yml")
    return [name for name in names if not order.tier or fleet.agents[name].agent.tier == order.tier]


def lacking(order: Order, fleet: Fleet, docs: Mapping[str, AgentDoc]) -> list[str]:
    """Of those, the ones that are not where and what they should be."""
    return [name for name in selected(order, fleet) if _lacks(name, order, fleet, docs)]


def _lacks(name: str, order: Order, fleet: Fleet, docs: Mapping[str, AgentDoc]) -> bool:
    version = (docs.get(name) or fleet.agents[name]).version
    placement = fleet.placements.get(name)
    running = [placed for placed in placement.instances if placed.state == "run"] if placement else []
    if order.host:
        return any(placed.host == order.host for placed in running)
    meant = [placed for placed in running if placed.instance == order.instance] if order.instance else []
    if order.to and not meant:  # an instance that was moved has another name now
        return not any(_is(placed, order.to, version) for placed in running)
    return not all(_is(placed, order.to, version) for placed in meant or running)


def _is(placed: Placed, to: str | None, version: str) -> bool:
    return placed.version == version and to in (None, placed.host)


def under_way(
    order: Order, journals: Sequence[Journal], fleet: Fleet, docs: Mapping[str, AgentDoc], names: Collection[str]
) -> list[Journal]:
    """Migrations that do what is wanted already. Raises MigrationRefused if one does something else."""
    found, problems = [], []
    for journal in journals:
        spec = journal.spec
        if journal.ended is not None or spec.agent not in names:
            continue
        version = (docs.get(spec.agent) or fleet.agents[spec.agent]).version
        there = spec.target.version == version and order.to in (None, spec.target.host)
        if there and spec.rehearse == order.rehearse:
            found.append(journal)
        elif spec.rehearse:
            problems.append(f"{spec.agent} is rehearsed just now, by migration {spec.id}")
        else:
            problems.append(f"{spec.agent} goes to {spec.target.host} already, by migration {spec.id}")
    if problems:
        raise MigrationRefused(problems, hint="`outrider migrate watch ID` waits for it, `migrate rollback ID` ends it")
    return found


def concerns(order: Order, journal: Journal, names: Collection[str]) -> bool:
    """Whether it is one of those that are to go back."""
    spec = journal.spec
    if order.migration:
        return journal.id == order.migration
    there = order.host in (None, spec.source.host, spec.target.host)
    return spec.agent in names and there and order.to in (None, spec.target.host)


def wish(order: Order, names: Sequence[str], docs: Mapping[str, AgentDoc]) -> Wish:
    """The migrations that are to be asked for."""
    judged = {name: value for name in POLICY if (value := getattr(order, name)) is not None}
    return Wish(
        by=who(),
        agents=tuple(names),
        leave=order.host or "",
        to=order.to or "",
        source=order.instance or "",
        docs={name: docs[name] for name in names if name in docs},
        policy=Given(**judged),
        why=order.why,
        staged=order.state == "staged",
        override=order.override,
        rehearse=order.rehearse,
        readable=order.readable,
    )


def who() -> str:
    """Who asks."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
