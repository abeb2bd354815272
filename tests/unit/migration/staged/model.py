"""Every way in which a migration can go, on a small scale: the real machine in an abstract world.

The world is one agent with two instances, S and T, on hosts of their own, their shims, a client, and two drivers of
which each may stand still between its look and its write. Everything that may happen next is tried, in every order, to
the end: `explore` returns the states in which a promise is broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from outrider.fleet.spec import Agent
from outrider.migration.staged.machine import next_action
from outrider.migration.staged.records import End as Place
from outrider.migration.staged.records import Entry, Journal, Outcome, Policy, Resolution, Spec, Strategy, What
from outrider.migration.staged.sight import Begin, Copied, Copy, Counts, End, GoBack, Hold, Sight, Wait
from outrider.migration.staged.story import Story, story_of
from outrider.registry.layout import AgentDoc, Handover, Placed, PlacementDoc
from outrider.registry.leases import LeaseDoc, Member

S, T = "A-1", "A-2"
HOST = {S: "s", T: "t"}
FOREVER = 1e9
GOOD, BAD = Counts(10_000, 0, (10_000,)), Counts(1_000, 900, (1_000,))


class Rules(Struct, frozen=True):
    """What keeps the promises; a test takes one away at a time.

    lease_guard, journal_guard, placement_guard: the driver's write fails if that has changed since its look
    wish_guard: a lease is handed over, and taken as an heir, only while the placement asks for it, in one transaction
    reserve: a reserve takes the lease from who handed it over with the state alone
    copies: the state follows before the lease is given up
    take_guard: who is no reserve takes the lease only while the placement says so, in one transaction
    """

    lease_guard: bool = True
    journal_guard: bool = True
    placement_guard: bool = True
    wish_guard: bool = True
    reserve: bool = True
    copies: bool = True
    take_guard: bool = True


class Note(Struct, frozen=True):
    """An entry of the journal, as far as what follows depends on it."""

    what: What
    step: str = ""
    outcome: Outcome | None = None


GIVEN_UP = Note("resolved", step="accept_loss")


class Pending(Struct, frozen=True):
    """What a driver is about to write, and what it has read."""

    entry: Note
    doc: PlacementDoc | None
    placement: int
    lease: int
    entries: int


class World(Struct, frozen=True):
    """Everything. `alive`, `up`: of S and T; `has`: acknowledged writes that each state folder holds.

    knows: the placement that each shim has seen; closing: a hand-over that a shim has finished but not yet released
    given_up: the old one went on without what the new one accepted, as a person accepted; back: T's host came back
    """

    placement: PlacementDoc
    entries: tuple[Note, ...] = ()
    lease: LeaseDoc = LeaseDoc("A", 1, S, "s", state="held")
    locked: bool = True
    indexes: tuple[int, int] = (0, 0)  # of the placement and the lease
    alive: tuple[bool, bool] = (True, False)
    up: tuple[bool, bool] = (True, True)
    has: tuple[int, int] = (0, 0)
    knows: tuple[PlacementDoc, PlacementDoc] = (PlacementDoc("A"), PlacementDoc("A"))
    closing: tuple[Handover | None, Handover | None] = (None, None)
    pending: tuple[Pending | None, Pending | None] = (None, None)
    acked: int = 0
    troubles: int = 0
    stale: int = 0
    restarted: bool = False
    given_up: bool = False
    back: bool = False


def spec_of(strategy: Strategy) -> Spec:
    """From host s to host t."""
    return Spec("m", "A", strategy, Place(S, "s", "v1"), Place(T, "t", "v1"), Policy(undecided="accept"))


def first(strategy: Strategy) -> World:
    """Before anything was done."""
    placement = PlacementDoc("A", (Placed(S, "s", "v1"),))
    return World(placement, knows=(placement, placement))


class Model:
    """`troubles`: deaths, lost hosts and people in one history; `writes`: the client's; `stale`: late writes."""

    def __init__(
        self, strategy: Strategy, rules: Rules | None = None, *,
        troubles: int = 1, writes: int = 2, stale: int = 1, rehearse: bool = False,
    ) -> None:  # fmt: skip
        self.spec = replace(spec_of(strategy), rehearse=rehearse)
        self.rules = rules or Rules()
        self.bounds = troubles, writes, stale
        self.agent = AgentDoc("A", "f", Agent(mode="singleton", ports={"call": "auto"}, state=True), "v1")
        self.broken: dict[str, World] = {}
        self.outcomes: set[str] = set()
        self.seen: set[World] = set()
        self.stories: dict[tuple[Note, ...], Story] = {}

    def explore(self, most: int = 600_000, *, until_broken: bool = False) -> None:
        """Try everything, or until a promise is broken. Raises AssertionError if that does not end."""
        work = [first(self.spec.strategy)]
        self.seen = set(work)
        while work and not (until_broken and self.broken):
            world = work.pop()
            following = list(self._next(world))
            if not following:
                self._at_rest(world)
            for after in following:
                if after not in self.seen:
                    self.seen.add(after)
                    work.append(after)
            assert len(self.seen) < most, "too many states"

    def _story(self, notes: tuple[Note, ...]) -> Story:
        if notes not in self.stories:
            entries = (_entry(number, note) for number, note in enumerate(notes))
            self.stories[notes] = story_of(Journal(self.spec, tuple(entries)))
        return self.stories[notes]

    def _next(self, world: World) -> Iterator[World]:
        yield from self._drivers(world)
        for who in (0, 1):
            yield from self._shim(world, who)
            yield from self._trouble(world, who)
        yield from self._client(world)
        yield from self._people(world)

    def _drivers(self, world: World) -> Iterator[World]:
        for driver in (0, 1):
            if found := world.pending[driver]:
                yield self._write(replace(world, pending=_set(world.pending, driver, None)), found)
            elif driver == 0 or world.stale < self.bounds[2]:
                for action in self._actions(world):
                    if made := _pending(world, action):
                        yield replace(
                            world, pending=_set(world.pending, driver, made), stale=world.stale + (driver == 1)
                        )

    def _actions(self, world: World) -> list[Any]:
        """What may be decided: time passes as it likes, and the new one turns out good or bad."""
        story = self._story(world.entries)
        found: list[Any] = []
        for waited_s in (0.0, FOREVER):
            for counts in (GOOD, BAD):
                action = next_action(self.spec, story, self._sight(world, story, waited_s, counts), 0.0)
                if not isinstance(action, Wait | Copy) and action not in found:
                    found.append(action)
        return found

    def _sight(self, world: World, story: Story, waited_s: float, counts: Counts) -> Sight:
        placed = {p.instance for p in world.placement.instances if p.state == "run"}
        passing = {n: 10.0 for i, n in enumerate((S, T)) if world.alive[i] and world.up[i] and n in placed}
        return Sight(
            placement=world.placement,
            agent=self.agent,
            lease=world.lease,
            locked=world.locked,
            waited_s=waited_s,
            passing=passing,
            trouble={n: "stopped: by request" for i, n in enumerate((S, T)) if self._says_stopped(world, i)},
            unwell=dict.fromkeys({S, T} - passing.keys(), waited_s),
            unheld_s=0.0 if self._holds(world, T) else waited_s,
            known_holder=frozenset({world.lease.holder}) if world.locked else frozenset(),
            lost=frozenset(HOST[n] for i, n in enumerate((S, T)) if not world.up[i]),
            counts={T: counts} if story.step == "verify" else {},
            copied=Copied(0, 0),
            new_key="k",
        )

    def _says_stopped(self, world: World, who: int) -> bool:
        """Its shim says so once it has seen that it is to be stopped, and has ended its process."""
        name = (S, T)[who]
        wanted = any(p.instance == name and p.state == "run" for p in world.knows[who].instances)
        return not wanted and not world.alive[who]

    def _write(self, world: World, what: Pending) -> World:
        rules = self.rules
        if rules.journal_guard and what.entries != len(world.entries):
            return world
        if rules.placement_guard and what.placement != world.indexes[0]:
            return world
        if rules.lease_guard and what.lease != world.indexes[1]:
            return world
        if world.entries and world.entries[-1].what == "ended":
            return world
        if what.entry.outcome:
            self.outcomes.add(what.entry.outcome)
        if what.entry.what == "held":
            self.outcomes.add("held")
        world = replace(world, entries=(*world.entries, what.entry))
        if what.doc is None:
            return world
        if self.spec.rehearse and world.lease.epoch == 1 and _touches(world.placement, what.doc):
            self.broken.setdefault("a rehearsal touches the one that serves", world)
        return replace(world, placement=what.doc, indexes=(world.indexes[0] + 1, world.indexes[1]))

    def _shim(self, world: World, who: int) -> Iterator[World]:
        if not world.up[who]:
            return
        name, known = (S, T)[who], world.knows[who]
        if known != world.placement:
            yield replace(world, knows=_set(world.knows, who, world.placement))
        placed = next((p for p in known.instances if p.instance == name), None)
        wanted = placed is not None and placed.state == "run"
        if wanted and not world.alive[who]:
            if self.spec.strategy == "cold" and world.alive[1 - who]:
                self.broken.setdefault("two run at once", world)
            yield replace(world, alive=_set(world.alive, who, True))
        if not wanted and world.alive[who]:
            yield self._dies(world, who)
        if placed and world.alive[who]:
            yield from self._hand_over(world, who, known)
            yield from self._take(world, who, placed, known)

    def _hand_over(self, world: World, who: int, known: PlacementDoc) -> Iterator[World]:
        name, other, wish = (S, T)[who], 1 - who, known.handover
        if not self._holds(world, name):
            return
        if (closing := world.closing[who]) is not None:
            world = replace(world, closing=_set(world.closing, who, None))
            if not self.rules.wish_guard or world.placement.handover == closing:
                lease = replace(world.lease, state="released", heir=Member(closing.instance, closing.host))
                yield _leased(world, lease, locked=False)
            yield world  # it took too long, and goes on
        elif (
            wish
            and wish.instance != name
            and wish.epoch == world.lease.epoch
            and world.alive[other]
            and world.up[other]
        ):
            has = _set(world.has, other, world.has[who]) if self.rules.copies else world.has
            yield replace(world, closing=_set(world.closing, who, wish), has=has)

    def _take(self, world: World, who: int, placed: Placed, known: PlacementDoc) -> Iterator[World]:
        lease, name = world.lease, (S, T)[who]
        if world.locked:
            return
        own = Member(name, HOST[name])
        has_state = lease.state == "released" and (lease.heir or Member(lease.holder, lease.host)) == own
        if placed.reserve and self.rules.reserve and not has_state:
            return
        if placed.reserve and lease.heir == own and self.rules.wish_guard and not _asks(world.placement, own, lease):
            return
        if self.rules.take_guard and not placed.reserve and known.migration:
            now = next((p for p in world.placement.instances if p.instance == name), None)
            if now is None or now.reserve:
                return
        if who == 0 and lease.holder == T and self._story(world.entries).loss:
            # From here on that is lost, and was said to be; nothing else may be.
            world = replace(world, acked=world.has[0], given_up=True)
        yield _leased(world, LeaseDoc("A", lease.epoch + 1, name, HOST[name], state="held"), locked=True)

    def _people(self, world: World) -> Iterator[World]:
        """Somebody restarts the old one, or asks to go back."""
        if self._may_give_up(world):
            yield replace(world, entries=(*world.entries, GIVEN_UP))
        if world.troubles >= self.bounds[0]:
            return
        more = replace(world, troubles=world.troubles + 1)
        instances = tuple(replace(p, generation=1) if p.instance == S else p for p in world.placement.instances)
        if S in {placed.instance for placed in instances}:
            yield replace(
                more,
                placement=replace(world.placement, instances=instances),
                indexes=(world.indexes[0] + 1, world.indexes[1]),
                restarted=True,
            )
        story = self._story(world.entries)
        if story.outcome is None and story.direction == "held":
            for resolution in ("keep", "back"):
                yield replace(more, entries=(*world.entries, Note("resolved", step=resolution)))
        if story.outcome is None and story.direction == "forward":
            yield replace(more, entries=(*world.entries, Note("asked_back")))

    def _may_give_up(self, world: World) -> bool:
        """As the desk answers whoever asks; once in a history."""
        story = self._story(world.entries)
        held = self.spec.strategy == "state" and story.outcome is None and story.direction == "held"
        if not held or GIVEN_UP in world.entries:
            return False
        return world.lease.holder == T and world.up == (True, False) and not world.locked

    def _holds(self, world: World, name: str) -> bool:
        return world.locked and world.lease.holder == name and world.lease.state == "held"

    def _dies(self, world: World, who: int) -> World:
        """Its process ends, and its shim gives the lease up."""
        world = replace(world, alive=_set(world.alive, who, False), closing=_set(world.closing, who, None))
        if self._holds(world, (S, T)[who]):
            return _leased(world, replace(world.lease, state="released", heir=None), locked=False)
        return world

    def _trouble(self, world: World, who: int) -> Iterator[World]:
        if who == 1 and not world.up[1] and not world.back and GIVEN_UP in world.entries:
            yield replace(world, up=(world.up[0], True), back=True)  # with what it knew when it was cut off
        if world.troubles >= self.bounds[0]:
            return
        more = replace(world, troubles=world.troubles + 1)
        if world.alive[who] and world.up[who]:
            yield self._dies(more, who)
        if world.up[who]:
            lost = replace(more, up=_set(world.up, who, False), alive=_set(world.alive, who, False),
                           closing=_set(world.closing, who, None))  # fmt: skip
            yield _leased(lost, world.lease, locked=False) if self._holds(world, (S, T)[who]) else lost

    def _client(self, world: World) -> Iterator[World]:
        if world.acked >= self.bounds[1] or world.placement.held:
            return
        for who, name in enumerate((S, T)):
            if self._holds(world, name) and world.alive[who] and world.closing[who] is None:
                if world.given_up and who == 1:
                    self.broken.setdefault("works with what was given up", world)
                if self.spec.strategy == "state" and world.has[who] < world.acked:
                    self.broken.setdefault("works without what was acknowledged", world)
                yield replace(world, acked=world.acked + 1, has=_set(world.has, who, world.acked + 1))

    def _at_rest(self, world: World) -> None:
        """Nothing more can happen. Either it has ended, or a person is waited for."""
        story = self._story(world.entries)
        if story.outcome is None and story.direction != "held":
            self.broken.setdefault("neither ended nor held", world)
        if story.outcome is None:
            return
        kept = Note("resolved", "keep") in world.entries
        if Note("asked_back") in world.entries and not kept and story.outcome == "finalised":
            self.broken.setdefault("goes on although asked to go back", world)
        if world.restarted and any(p.instance == S and p.generation == 0 for p in world.placement.instances):
            self.broken.setdefault("undoes what somebody else wrote", world)
        names = {placed.instance for placed in world.placement.instances}
        if names != ({T} if story.outcome == "finalised" else {S}):
            self.broken.setdefault("the wrong one remains", world)
        if world.placement.migration or any(placed.reserve for placed in world.placement.instances):
            self.broken.setdefault("the placement is not everybody's again", world)
        who = 1 if story.outcome == "finalised" else 0
        if world.up[who] and not self._holds(world, (S, T)[who]):
            self.broken.setdefault("nobody serves", world)
        if world.up[who] and self.spec.strategy == "state" and world.has[who] < world.acked:
            self.broken.setdefault("lost what was acknowledged", world)


def _touches(before: PlacementDoc, after: PlacementDoc) -> bool:
    """Whether more is written than that the new one is there, or is not."""
    mine = [[placed for placed in doc.instances if placed.instance == S] for doc in (before, after)]
    return mine[0] != mine[1] or after.handover is not None or bool(after.held)


def _pending(world: World, action: Any) -> Pending | None:
    doc = action.doc if not isinstance(action, GoBack) else None
    return Pending(_note(action), doc, *world.indexes, len(world.entries))


def _note(action: Begin | GoBack | Hold | End) -> Note:
    match action:
        case Begin():
            return Note("begun", action.step)
        case GoBack():
            return Note("rollback")
        case Hold():
            return Note("held")
        case End():
            return Note("ended", outcome=action.outcome)


def _entry(number: int, note: Note) -> Entry:
    """As the journal has it. Of `resolved` the step is how."""
    if note.what == "resolved":
        hows: dict[str, Resolution] = {"keep": "keep", "back": "back", "accept_loss": "accept_loss"}
        return Entry(number, "resolved", 0.0, "", "", said="why", resolution=hows[note.step])
    return Entry(number, note.what, 0.0, "", "", note.step, "why", note.outcome)


def _asks(placement: PlacementDoc, heir: Member, lease: LeaseDoc) -> bool:
    return placement.handover == Handover(heir.instance, heir.host, lease.epoch)


def _leased(world: World, lease: LeaseDoc, *, locked: bool) -> World:
    return replace(world, lease=lease, locked=locked, indexes=(world.indexes[0], world.indexes[1] + 1))


def _set(pair: tuple[Any, Any], who: int, value: Any) -> tuple[Any, Any]:
    return (value, pair[1]) if who == 0 else (pair[0], value)
