"""What the driver of one migration goes by: the fleet, both instances, and how they did since the step was begun."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from outrider.daemon.migration_copy import CopyAhead
from outrider.daemon.migration_eyes import Eyes
from outrider.daemon.migration_truth import Truth
from outrider.discovery.feed import View
from outrider.migration.staged.beside import Beside, Mode, looked
from outrider.migration.staged.evidence import baseline_of, of_gpu
from outrider.migration.staged.plan import Fleet, refusals
from outrider.migration.staged.records import Spec
from outrider.migration.staged.sight import Counts, Sight
from outrider.migration.staged.story import JUDGED, story_of
from outrider.registry.layout import AgentDoc

if TYPE_CHECKING:
    from outrider.daemon.migrating import Migrations

COUNT_S = 0.1  # from one question for counts to the next
REST_S = 0.25  # after a cutover, for the calls that waited for it: they come at once
# What its shim says of a process that ended by itself; that it did may be said for milliseconds only.
ENDED = ("died:", "exited:", "starting:")


class Lookout:
    """Of one migration."""

    def __init__(self, owner: Migrations, migration: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.eyes = Eyes(owner.view, owner.config, clock)
        self._owner = owner
        self._id = migration
        self._clock = clock
        self._unheld_since: float | None = None
        self._asked_at = float("-inf")
        self._beside = Beside()
        self.step_begun()

    def step_begun(self) -> None:
        """What was counted was of the step before."""
        self._probes = self._vram = (0, 0)
        self._at_begin: Counts | None = None
        self._waited_for: Counts | None = None
        self._beside = Beside(usual=self._beside.usual)
        self._died = ""

    async def count(self, spec: Spec) -> None:
        """Ask both instances how their calls went."""
        now = self._clock()
        if now - self._asked_at < COUNT_S:
            return
        self._asked_at = now
        spots = {spec.source.instance: spec.source.host, spec.target.instance: spec.target.host}
        bad, n = self._probes
        self._probes = bad + (spec.target.instance not in self.eyes.look(spots)[0]), n + 1
        agent = self._owner.view().agents.get(spec.agent)
        declared = agent.agent.resources.vram_mib if agent else None
        self._vram = of_gpu(self._vram, self.eyes.vram_mib(spec.target.instance, spec.target.host), declared)
        await self.eyes.ask(spots)
        counts = self.eyes.counts.get(spec.target.instance)
        self._at_begin = self._at_begin or counts
        _, began_at = self._owner.began.get(self._id, (None, now))
        if self._waited_for is None and now - began_at >= REST_S:
            self._waited_for = counts
        self._measure(spots, counts)

    def _measure(self, spots: Mapping[str, str], counts: Counts | None) -> None:
        """Whether its machine is slow just now, by how soon the source answers while it is well."""
        journal = self._owner.journals[self._id]
        source, story = journal.spec.source.instance, story_of(journal)
        mode: Mode = "usual" if not story.cut_over and story.step != "canary" else "rest"
        if self._waited_for is not None and story.step in ("canary", JUDGED):
            mode = "judge"
        took_s = self.eyes.took.get(source) if source in self.eyes.look(spots)[0] else None
        baseline = baseline_of(story.evidence.get("start", {}))
        self._beside = looked(self._beside, mode, took_s, counts, baseline)

    def sight(self, truth: Truth, agent: AgentDoc, copy: CopyAhead, new_key: str) -> Sight:
        """All that is known now. `agent`: that of `truth`."""
        spec, picture = truth.journal.spec, self._owner.placer.picture()
        spots = {spec.source.instance: spec.source.host, spec.target.instance: spec.target.host}
        passing, trouble = self.eyes.look(spots)
        if trouble.get(spec.target.instance, "").startswith(ENDED):
            self._died = trouble[spec.target.instance]
        view, (began, began_at) = self._owner.view(), self._owner.began[self._id]
        refused: tuple[str, ...] = ()
        if began is None and truth.index:  # it costs too much to ask again and again
            agents = {**view.agents, spec.agent: agent}
            placements = {**view.placements, spec.agent: truth.placement}
            fleet = Fleet(agents, placements, view.hosts, {**picture.trouble, **dict.fromkeys(picture.lost, "is lost")})
            refused = tuple(refusals(spec, fleet))
        journals = self._owner.journals
        others = {name: ended.outcome if (ended := journals[name].ended) else None
                  for name in spec.after if name in journals}  # fmt: skip
        return Sight(
            placement=truth.placement,
            agent=agent,
            lease=truth.lease.doc if truth.lease else None,
            locked=bool(truth.lease and truth.lease.session),
            waited_s=self._clock() - began_at,
            passing=passing,
            trouble=trouble,
            died=self._died,
            unwell=self.eyes.unwell,
            unheld_s=self._unheld_s(truth),
            known_holder=self.eyes.holders(spots),
            lost=frozenset(picture.lost) | _unknown(view, spots.values()),
            counts=dict(self.eyes.counts),
            at_begin=self._at_begin,
            waited_for=self._waited_for,
            aside=self._beside.aside,
            worst=self._beside.worst,
            probes=self._probes,
            vram=self._vram,
            copied=copy.copied,
            copy_error=copy.error,
            others=others,
            refused=refused,
            new_key=new_key,
        )

    def _unheld_s(self, truth: Truth) -> float:
        """For how long the target has not held the lease."""
        lease, target, now = truth.lease, truth.journal.spec.target.instance, self._clock()
        if lease and lease.session and lease.doc.holder == target:
            self._unheld_since = None
            return 0.0
        self._unheld_since = now if self._unheld_since is None else self._unheld_since
        return now - self._unheld_since


def _unknown(view: View, hosts: Iterable[str]) -> frozenset[str]:
    """Those that were taken out of the inventory and are not in Consul's catalog either: nobody looks after them."""
    known = view.nodes | view.hosts.keys()
    return frozenset(host for host in hosts if view.nodes and host not in known)
