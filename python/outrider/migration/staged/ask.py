"""Several migrations asked for at once: all that would be done, in waves of needs, or every reason why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from outrider.errors import MigrationRefused, OutriderError, UnknownAgent
from outrider.fleet import graph, spec
from outrider.migration.staged.desk import Desk, Planned, new_id, read_fleet
from outrider.migration.staged.plan import Ask, Fleet, planned
from outrider.migration.staged.records import Given, Policy, RiskNote, Spec
from outrider.registry.client import Consul
from outrider.registry.kv import list_docs
from outrider.registry.layout import FLEET, PLACEMENT, AgentDoc, Placed, PlacementDoc

AT_ONCE = 16  # migrations in one transaction: up to three writes and a guard each, of 64
PolicyOf = Callable[[Ask, Spec], tuple[Policy, RiskNote | None]]


class Wish(Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody wants.

    agents: by name; leave: or everything that runs on this host
    to: the host; by default each stays where it is
    source: the instance, of a single agent
    docs: agents' documents of another version, to be published with their migrations
    policy: what is to be otherwise than their risk says; override: why they are done though a gate is not met
    staged: somebody must approve each before its cutover
    rehearse: each ends before its cutover, and its new instance goes again
    readable: the old versions can read the files that the new ones write; None: nobody says
    """

    by: str
    agents: tuple[str, ...] = ()
    leave: str = ""
    to: str = ""
    source: str = ""
    docs: Mapping[str, AgentDoc] = field(default_factory=dict)
    policy: Given = Given()
    why: str = ""
    staged: bool = False
    override: str = ""
    rehearse: bool = False
    readable: bool | None = None


class Plan(Struct, frozen=True):
    """One of them. `wave`: from 1 on; `agent`: its document as it will be; `fleet`: what it was planned by."""

    planned: Planned
    wave: int
    agent: AgentDoc
    fleet: Fleet

    @property
    def spec(self) -> Spec:
        """The migration."""
        return self.planned.spec


def plans(
    consul: Consul, wish: Wish, wall: Callable[[], float] = time.time, policy: PolicyOf | None = None
) -> list[Plan]:
    """What would be done, needs first. Writes nothing. Raises UnknownAgent, MigrationRefused, ConsulError."""
    agents = list_docs(consul, FLEET, AgentDoc)
    placements = list_docs(consul, PLACEMENT, PlacementDoc)
    fleet = read_fleet(consul, agents, placements)
    indexes = {FLEET + name: index for name, (_, index) in agents.docs.items()}
    indexes |= {PLACEMENT + name: index for name, (_, index) in placements.docs.items()}
    return arranged(wish, fleet, indexes, wall(), policy or (lambda ask, made: (Policy(), None)))


def create(consul: Consul, found: Sequence[Plan]) -> list[Spec]:
    """Ask for them all, waves in order. Raises ConsulConflict if things changed meanwhile."""
    made: list[Spec] = []
    for start in range(0, len(found), AT_ONCE):
        made += Desk(consul).create([plan.planned for plan in found[start : start + AT_ONCE]])
    return made


def arranged(wish: Wish, fleet: Fleet, indexes: Mapping[str, int], at: float, policy: PolicyOf) -> list[Plan]:
    """Pure. What one takes of a host is not there for the next. `indexes`: of documents as they were read, by key."""
    pairs = _instances(wish, fleet)
    found: list[Plan] = []
    problems: list[str] = []
    well: set[str] = set()
    now, judged = fleet, _judged(policy, wish)
    before: tuple[str, ...] = ()
    for number, wave in enumerate(_waves({**fleet.agents, **wish.docs}, {agent for agent, _ in pairs}), 1):
        mine: list[Plan] = []
        for agent, source in (pair for name in wave for pair in pairs if pair[0] == name):
            last = next((plan.spec.id for plan in reversed(mine) if plan.spec.agent == agent), None)
            doc = wish.docs.get(agent)
            after = (last,) if last else before
            ask = Ask(
                agent, wish.by, source, wish.to, doc, wish.why, after, wish.override, wish.rehearse, wish.readable
            )
            try:
                plan = _plan(ask, _ended(mine, now, agent), indexes, at, judged, number)
            except MigrationRefused as error:
                if not wish.leave and len(pairs) == 1:
                    raise
                problems += [f"{agent}: {problem}" for problem in error.problems]
                continue
            mine.append(plan)
            well.add(agent)
            now = _after(plan, now)
        before = tuple(plan.spec.id for plan in mine) or before
        found += mine
    if problems:
        refused = {problem.partition(":")[0] for problem in problems}
        raise MigrationRefused(problems, hint=_hint(sorted(well - refused), wish))
    return found


def _judged(by_risk: PolicyOf, wish: Wish) -> PolicyOf:
    """As its risk says, and otherwise where whoever asks says so."""

    def judged(ask: Ask, made: Spec) -> tuple[Policy, RiskNote | None]:
        found, risk = by_risk(ask, made)
        found = wish.policy.over(found)
        if wish.rehearse:
            return replace(found, approvals=0), risk
        return replace(found, approvals=max(1, found.approvals)) if wish.staged else found, risk

    return judged


def _hint(well: Sequence[str], wish: Wish) -> str:
    to = (f" --to {wish.to}" if wish.to else "") + (" --rehearse" if wish.rehearse else "")
    return f"nothing was changed; those that can: `outrider migrate run {' '.join(well)}{to}`" if well else (
        "nothing was changed"
    )  # fmt: skip


def _plan(ask: Ask, fleet: Fleet, indexes: Mapping[str, int], at: float, policy: PolicyOf, wave: int) -> Plan:
    made = planned(ask, fleet, new_id(at), at, Policy())  # what cannot be done at all is refused before it is judged
    old = fleet.agents[ask.agent]
    doc = None
    if ask.doc is not None and ask.doc.version != old.version:
        before = old.at(made.source.version) or old
        doc = replace(ask.doc, previous=replace(before, previous=None))
    judged, risk = policy(replace(ask, doc=doc), made)
    made = replace(made, policy=judged, risk=risk)
    read_at = [indexes.get(prefix + ask.agent, 0) if doc else 0 for prefix in (FLEET, PLACEMENT)]
    return Plan(Planned(made, doc, *read_at), wave, doc or old, fleet)


def _after(plan: Plan, fleet: Fleet) -> Fleet:
    """With the new instance beside the old one, which is there until the end."""
    made, doc = plan.spec, fleet.placements[plan.spec.agent]
    target = Placed(made.target.instance, made.target.host, made.target.version, made.target.entry)
    placements = {**fleet.placements, made.agent: replace(doc, instances=(*doc.instances, target))}
    return replace(fleet, agents={**fleet.agents, made.agent: plan.agent}, placements=placements)


def _ended(plans: Sequence[Plan], fleet: Fleet, agent: str) -> Fleet:
    """Without the instances that the agent's earlier migrations leave: its next one begins when they have ended."""
    mine = [plan.spec for plan in plans if plan.spec.agent == agent]
    gone = {(spec.target if spec.rehearse else spec.source).instance for spec in mine}
    doc = fleet.placements[agent]
    kept = tuple(placed for placed in doc.instances if placed.instance not in gone)
    return replace(fleet, placements={**fleet.placements, agent: replace(doc, instances=kept)})


def _instances(wish: Wish, fleet: Fleet) -> list[tuple[str, str]]:
    """Agent and instance of each migration; the instance is empty where the plan is to find it."""
    if wish.leave:
        return _leaving(wish, fleet)
    unknown = [name for name in wish.agents if name not in fleet.placements]
    if unknown:
        raise UnknownAgent(f"no agent {unknown[0]} in the fleet", hint="`outrider agents` lists them")
    if not wish.agents:
        raise MigrationRefused(
            ["no agent is named, nor a host to leave"], hint="`outrider migrate run AGENT --to HOST`"
        )
    if wish.source and len(wish.agents) > 1:
        raise MigrationRefused([f"{wish.source} is an instance of one agent, and {len(wish.agents)} are named"])
    found: list[tuple[str, str]] = []
    for name in dict.fromkeys(wish.agents):
        found += [(name, wish.source)] if wish.source else list(_behind(name, wish, fleet)) or [(name, "")]
    return found


def _behind(name: str, wish: Wish, fleet: Fleet) -> Iterator[tuple[str, str]]:
    """Where only the version changes, each instance that is not at it."""
    doc = wish.docs.get(name) or fleet.agents.get(name)
    if doc is None or wish.to:
        return
    for placed in fleet.placements[name].instances:
        if placed.state == "run" and placed.version != doc.version:
            yield name, placed.instance


def _leaving(wish: Wish, fleet: Fleet) -> list[tuple[str, str]]:
    if wish.leave not in fleet.hosts:
        raise OutriderError(f"there is no host {wish.leave}; there are: {', '.join(sorted(fleet.hosts)) or 'none'}")
    if not wish.to or wish.to == wish.leave:
        raise MigrationRefused(
            ["it is not said where to"], hint=f"`outrider migrate run --from {wish.leave} --to HOST`"
        )
    found = [
        (name, placed.instance)
        for name, doc in sorted(fleet.placements.items())
        for placed in doc.instances
        if placed.host == wish.leave and placed.state == "run" and (not wish.agents or name in wish.agents)
    ]
    if not found:
        raise MigrationRefused([f"nothing of that runs on {wish.leave}"], hint="`outrider place` shows what runs where")
    return found


def _waves(agents: Mapping[str, AgentDoc], names: set[str]) -> list[tuple[str, ...]]:
    """Those of `names` in the order of their needs, as they will be, over agents in between too."""
    whole = spec.Fleet("", {name: doc.agent for name, doc in agents.items()})
    waves = (tuple(name for name in wave if name in names) for wave in graph.waves(whole))
    return [wave for wave in waves if wave]
