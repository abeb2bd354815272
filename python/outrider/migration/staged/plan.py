"""From what is asked to a migration that can be done, or every reason why not. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from outrider.errors import MigrationRefused, UnknownAgent
from outrider.failover.floor import Floor
from outrider.fleet.ports import CALL
from outrider.migration.staged.edits import free_name, placed_of
from outrider.migration.staged.records import End, Policy, RiskNote, Spec, Strategy
from outrider.registry.layout import AgentDoc, HostDoc, Placed, PlacementDoc

RECENT = "`outrider migrate list` shows it"
NOTHING_RUNS = f"without `ports: {{{CALL}: auto}}` its new instance does not start before the old one has ended"


class Fleet(Struct, frozen=True):
    """The fleet's documents, and why nothing new may be put on some hosts (beside being drained)."""

    agents: Mapping[str, AgentDoc]
    placements: Mapping[str, PlacementDoc]
    hosts: Mapping[str, HostDoc]
    trouble: Mapping[str, str] = field(default_factory=dict)

    def closed(self) -> dict[str, str]:
        """Host to why nothing new may be put there."""
        return {**self.trouble, **{name: doc.closed for name, doc in self.hosts.items() if doc.closed}}


class Ask(Struct, frozen=True):
    """What somebody wants of one agent.

    source: the instance; by default the only one, or the first that is not at the version wanted
    to: the host; by default where the instance is
    doc: the agent's document with another version; None: the one that is published
    readable: whether the old version can read the files that the new one writes; None: nobody says
    override: why it is done though a gate is not met
    rehearse: it ends before the cutover, and the new instance goes again
    """

    agent: str
    by: str
    source: str = ""
    to: str = ""
    doc: AgentDoc | None = None
    why: str = ""
    after: tuple[str, ...] = ()
    override: str = ""
    rehearse: bool = False
    readable: bool | None = None


def planned(ask: Ask, fleet: Fleet, migration: str, at: float, policy: Policy, risk: RiskNote | None = None) -> Spec:
    """The migration. Raises UnknownAgent, MigrationRefused with every reason."""
    agent, placement = fleet.agents.get(ask.agent), fleet.placements.get(ask.agent)
    if agent is None or placement is None:
        raise UnknownAgent(f"no agent {ask.agent} in the fleet", hint="`outrider agents` lists them")
    wanted = ask.doc or agent
    placed = _source(ask, placement, wanted.version)
    host = ask.to or placed.host
    if (host, wanted.version) == (placed.host, placed.version):
        raise MigrationRefused(
            [f"{placed.instance} is on {host} at version {wanted.version} already"],
            hint="name another host, or give the agent another version",
        )
    name = free_name(placement)
    strategy = strategy_of(wanted)
    source = End(placed.instance, placed.host, placed.version, placed.entry)
    spec = Spec(
        id=migration,
        agent=ask.agent,
        strategy=strategy,
        source=source,
        target=End(name, host, wanted.version),
        policy=policy,
        by=ask.by,
        at=at,
        why=ask.why,
        risk=risk,
        after=ask.after,
        rehearse=ask.rehearse,
    )
    after = replace(fleet, agents={**fleet.agents, ask.agent: wanted})
    problems = [*refusals(spec, fleet, wanted)]
    entry = entry_for(spec, after) if not problems else ""
    if entry is None:
        problems.append(f"{name} has no place on {host}: {lacks(spec, after)}")
    if problems:
        raise MigrationRefused(problems, hint="nothing was changed")
    return replace(spec, target=replace(spec.target, entry=entry or ""))


def strategy_of(agent: AgentDoc) -> Strategy:
    """How an agent can be moved at best."""
    if agent.agent.mode == "replicated":
        return "replicated"
    if CALL not in agent.agent.ports:
        return "cold"
    return "state" if agent.agent.state else "singleton"


def refusals(spec: Spec, fleet: Fleet, wanted: AgentDoc | None = None) -> Iterator[str]:
    """Why it cannot be begun as things are. `wanted`: the agent's document, if it is still to be published."""
    agent, placement = wanted or fleet.agents.get(spec.agent), fleet.placements.get(spec.agent)
    if agent is None or placement is None:
        yield f"{spec.agent} is not in the fleet any more"
        return
    if placement.migration and placement.migration != spec.id:
        yield f"{spec.agent} is being moved already, by migration {placement.migration}; {RECENT}"
    if spec.target.version != agent.version:
        yield f"{spec.agent} is published at version {agent.version}, not at {spec.target.version}"
    source = placed_of(placement, spec.source.instance)
    if source is None or (source.host, source.version, source.state) != (*_where(spec), "run"):
        yield f"{spec.source.instance} does not run on {spec.source.host} at version {spec.source.version} any more"
    if placed_of(placement, spec.target.instance) and placement.migration != spec.id:
        yield f"there is an instance {spec.target.instance} meanwhile; ask again"
    others = [p.instance for p in placement.instances if p.instance != spec.source.instance and p.state == "run"]
    if spec.strategy == "state" and others:
        yield f"{', '.join(others)} would take over with old state; a singleton with state is moved without standbys"
    if len({placed.instance for placed in placement.instances}) != len(placement.instances):
        yield f"an instance of {spec.agent} is moving between two hosts just now"
    if spec.target.host not in fleet.hosts:
        yield f"there is no host {spec.target.host}; there are: {', '.join(sorted(fleet.hosts)) or 'none'}"
    elif why := fleet.closed().get(spec.target.host):
        yield f"{spec.target.host} {why}"
    if spec.strategy == "cold" and agent.agent.state:
        yield (
            f"{spec.agent} keeps state and does not serve calls (`ports: {{{CALL}: auto}}`), so nothing takes its "
            "state along: only an agent that uses outrider.Agent can be moved with it"
        )
    if spec.rehearse and spec.strategy == "cold":
        yield f"{spec.agent} cannot be rehearsed: {NOTHING_RUNS}"


def _where(spec: Spec) -> tuple[str, str]:
    return spec.source.host, spec.source.version


def entry_for(spec: Spec, fleet: Fleet) -> str | None:
    """The key of `hosts` that the target fills; None if it does not fit there."""
    floor = _floor(spec, fleet)
    want = next((want for want in floor.wants if want.name == spec.agent), None)
    return floor.put_on(want, spec.target.instance, spec.target.host) if want else None


def lacks(spec: Spec, fleet: Fleet) -> str:
    """Why the target does not fit."""
    floor = _floor(spec, fleet)
    want = next((want for want in floor.wants if want.name == spec.agent), None)
    if want is None:
        return "it is not placed"
    for entry, rooms in want.rooms.items():
        for room in rooms:
            if room.host.name == spec.target.host:
                return room.refuses(want, entry)
    named = ", ".join(entry for entry in want.rooms if entry)
    return f"the fleet file lets {spec.agent} run on {named} only" if named else "the host is not known"


def _floor(spec: Spec, fleet: Fleet) -> Floor:
    """The hosts with what is on them; without the source where that ends before the target begins."""
    placements = dict(fleet.placements)
    doc = placements[spec.agent]
    keep = tuple(p for p in doc.instances if spec.strategy != "cold" or p.instance != spec.source.instance)
    placements[spec.agent] = replace(doc, instances=keep)
    return Floor(fleet.agents, placements, fleet.hosts, fleet.closed())


def _source(ask: Ask, placement: PlacementDoc, version: str) -> Placed:
    """The instance that is meant. Raises MigrationRefused."""
    names = [placed.instance for placed in placement.instances]
    if ask.source:
        found = placed_of(placement, ask.source)
        if found is None:
            raise MigrationRefused([f"{ask.agent} has no instance {ask.source}; it has {', '.join(names) or 'none'}"])
        return found
    running = [placed for placed in placement.instances if placed.state == "run"]
    behind = [placed for placed in running if placed.version != version]
    if len(running) == 1 or (behind and not ask.to):
        return (behind or running)[0]
    if not running:
        raise MigrationRefused([f"no instance of {ask.agent} is to run"], hint="`outrider start` starts one")
    raise MigrationRefused(
        [f"{ask.agent} has {len(running)} instances: {', '.join(names)}"], hint="say which: `--instance NAME`"
    )
