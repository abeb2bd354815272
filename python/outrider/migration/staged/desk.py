"""Migrations at Consul: planned, asked for, and steered by people. What blocks; call it from a worker thread."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from msgspec import Struct

from outrider.errors import ConsulConflict, MigrationRefused
from outrider.failover.sight import GOSSIP
from outrider.migration.staged.journal import append, entry_change, read_all, read_one, spec_change
from outrider.migration.staged.loss import loss_said, lost_since, not_lost
from outrider.migration.staged.machine import published_over
from outrider.migration.staged.plan import Fleet
from outrider.migration.staged.records import Entry, Journal, Question, Resolution, Spec, What, next_entry
from outrider.migration.staged.story import story_of
from outrider.registry.client import Consul
from outrider.registry.kv import Change, Docs, Guard, get_doc, list_docs, put_docs
from outrider.registry.layout import FLEET, HOSTS, PLACEMENT, SHIM, AgentDoc, HostDoc, PlacementDoc
from outrider.registry.leases import LEASES, decode_leases
from outrider.registry.services import critical, nodes

T = TypeVar("T")
TRIES = 5


class Planned(Struct, frozen=True):
    """A migration that can be done, and that has not been asked for yet."""

    spec: Spec
    doc: AgentDoc | None = None  # to be published with it
    index: int = 0  # at which the agent's document was read
    placed_index: int = 0  # at which its placement was


class Desk:
    """What people do to migrations. `wall`: Unix seconds."""

    def __init__(self, consul: Consul, wall: Callable[[], float] = time.time) -> None:
        self._consul = consul
        self._wall = wall

    def create(self, plans: list[Planned]) -> list[Spec]:
        """Ask for them: from here on the elected shim carries them out.

        Raises MigrationRefused if somebody else was quicker, ConsulConflict if other things changed.
        """
        changes: list[Change] = []
        guards: list[Guard] = []
        for plan in plans:
            spec = plan.spec
            if plan.doc is not None:
                changes.append(Change(FLEET + spec.agent, plan.doc, plan.index))
                # Nothing is published over the version that another one has begun to bring.
                guards.append(Guard(PLACEMENT + spec.agent, index=plan.placed_index))
            first = next_entry(Journal(spec), "planned", self._wall(), spec.by, said=spec.why)
            changes += [spec_change(spec), entry_change(spec.id, first)]
        try:
            put_docs(self._consul, changes, guards)
        except ConsulConflict as error:
            agents = {plan.spec.agent for plan in plans}
            others = [j.spec for j in self.journals()[0] if j.ended is None and j.spec.agent in agents]
            if others:
                said = [f"{other.agent} is to be moved by migration {other.id}, of {other.by}" for other in others]
                raise MigrationRefused(said, hint=f"`outrider migrate watch {others[0].id}` follows it") from error
            raise
        return [plan.spec for plan in plans]

    def journals(self) -> tuple[list[Journal], tuple[str, ...]]:
        """Every migration, the newest last, and what could not be read."""
        read = read_all(self._consul)
        return sorted(read.journals.values(), key=lambda journal: journal.spec.at), read.problems

    def get(self, migration: str) -> Journal:
        """One. Raises UnknownMigration."""
        return read_one(self._consul, migration)

    def approve(self, migration: str, by: str, said: str = "", approves: Question = "cutover") -> Journal:
        """Somebody agrees to the cutover before it begins; or, while it is judged, that without a verdict it stays."""
        return self._say(migration, lambda journal: _approved(journal, by, said, approves))

    def pause(self, migration: str, by: str) -> Journal:
        """No further step is begun. What is under way is finished, and what goes back goes back."""
        return self._say(migration, lambda journal: _told(journal, "paused", by, ""))

    def resume(self, migration: str, by: str) -> Journal:
        """Go on."""
        return self._say(migration, lambda journal: _told(journal, "resumed", by, ""))

    def rollback(self, migration: str, by: str, said: str = "") -> Journal:
        """Go back. Raises MigrationRefused for one that goes back already, or has ended."""
        return self._say(migration, lambda journal: _told(journal, "asked_back", by, said or f"asked for by {by}"))

    def resolve(self, migration: str, by: str, resolution: Resolution, said: str = "") -> Journal:
        """Decide about one that is held: keep the new one, or try again to go back.

        accept_loss: back without what the new one accepted. Raises MigrationRefused for what `decided` refuses.
        """
        return self._say(migration, lambda journal: self.decided(journal, by, resolution, said))

    def decided(self, journal: Journal, by: str, resolution: Resolution, said: str = "") -> Callable[[float], Entry]:
        """The entry of that decision. Raises MigrationRefused for one that is not held, or that cannot end so.

        Nothing is kept whose version is not published any more, nor given up what is not lost with its host.
        """
        _check_held(journal)
        if resolution == "accept_loss":
            return self._given_up(journal, by, said)
        if resolution == "keep":
            self._check_published(journal.spec)
        return lambda at: next_entry(journal, "resolved", at, by, resolution=resolution, said=said)

    def _check_published(self, spec: Spec) -> None:
        agent, _ = get_doc(self._consul, FLEET + spec.agent, AgentDoc)
        if agent and (over := published_over(spec, agent)):
            back = f"`outrider migrate resolve {spec.id} --back` goes back to version {spec.source.version}"
            raise MigrationRefused([f"migration {spec.id}: {over}"], hint=f"nothing was changed; {back}")

    def _given_up(self, journal: Journal, by: str, said: str) -> Callable[[float], Entry]:
        spec = journal.spec
        leases, _ = decode_leases(self._consul.get(f"/v1/kv/{LEASES}{spec.agent}"))
        lost = lost_hosts(self._consul, (spec.source.host, spec.target.host))
        problem = not_lost(journal, leases.get(spec.agent), lost)
        if not problem and not said:
            problem = "say why, for others to read: `--said TEXT`"
        if problem:
            raise MigrationRefused([f"migration {journal.id}: {problem}"], hint="nothing was changed")
        evidence = {"lost_since": lost_since(journal), "instance": spec.target.instance, "host": spec.target.host}
        why = loss_said(journal, by, said)
        return lambda at: next_entry(journal, "resolved", at, by, resolution="accept_loss", said=why, evidence=evidence)

    def _say(self, migration: str, entry: Callable[[Journal], Callable[[float], Entry]]) -> Journal:
        for attempt in range(TRIES):
            journal = self.get(migration)
            made = entry(journal)(self._wall())
            try:
                append(self._consul, migration, made)
                return journal.followed_by(made)
            except ConsulConflict:  # a step was begun meanwhile
                if attempt == TRIES - 1:
                    raise
        raise AssertionError


def read_fleet(
    consul: Consul, agents: Docs[AgentDoc] | None = None, placements: Docs[PlacementDoc] | None = None
) -> Fleet:
    """The fleet's documents as the leader has them, and which hosts are in trouble."""
    hosts = _plain(list_docs(consul, HOSTS, HostDoc))
    checks = critical(consul.get("/v1/health/state/critical"))
    there = nodes(consul)
    trouble = {name: "is not in Consul's catalog" for name in hosts if name not in there}
    for check in checks:
        if not check.service_id and check.node in hosts:
            said = "is lost" if check.check_id == GOSSIP else f"has no shim that answers ({SHIM})"
            trouble.setdefault(check.node, said)
    docs = agents or list_docs(consul, FLEET, AgentDoc)
    placed = placements or list_docs(consul, PLACEMENT, PlacementDoc)
    return Fleet(_plain(docs), _plain(placed), hosts, trouble)


def lost_hosts(consul: Consul, hosts: Iterable[str]) -> frozenset[str]:
    """Which of them Consul holds lost now, or does not know."""
    failed = {check.node for check in critical(consul.get("/v1/health/state/critical")) if check.check_id == GOSSIP}
    well = nodes(consul) - failed
    return frozenset(host for host in hosts if host not in well)


def new_id(at: float) -> str:
    """Sorts by time, and is never given twice."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(at))}-{secrets.token_hex(3)}"


def _approved(journal: Journal, by: str, said: str, approves: Question) -> Callable[[float], Entry]:
    """What is meant is said, not guessed: who is late with the one does not mean the other."""
    make = _told(journal, "approved", by, said, approves=approves)
    asks = story_of(journal).asks
    if asks == approves:
        return make
    problem = "its cutover has begun already" if approves == "cutover" else "it is not judged yet, after its cutover"
    hint = f"`outrider migrate watch {journal.id}` follows it"
    if asks == "verdict":
        hint = f"`outrider migrate approve {journal.id} --verdict` says that it is well enough without a verdict"
    raise MigrationRefused([f"migration {journal.id}: {problem}"], hint=hint)


def _told(journal: Journal, what: What, by: str, said: str, **more: Any) -> Callable[[float], Entry]:
    story = story_of(journal)
    problem = ""
    if journal.broken:
        problem = f"its journal is broken: {journal.broken}"
    elif story.outcome:
        problem = f"it has ended: {story.outcome}"
    elif story.direction != "forward":
        hint = "is held" if story.direction == "held" else "goes back already"
        problem = f"it {hint}: {story.reason}"
    if problem:
        raise MigrationRefused([f"migration {journal.id}: {problem}"], hint=f"`outrider migrate show {journal.id}`")
    return lambda at: next_entry(journal, what, at, by, said=said, **more)


def _check_held(journal: Journal) -> None:
    story = story_of(journal)
    if story.direction != "held" or story.outcome:
        raise MigrationRefused(
            [f"migration {journal.id} is not held"], hint=f"`outrider migrate show {journal.id}` says where it is"
        )


def _plain(docs: Docs[T]) -> Mapping[str, T]:
    return {name: doc for name, (doc, _) in docs.docs.items()}
