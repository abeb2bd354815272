"""What a migration is, and what is written down of it.

`outrider/migrations/<id>/spec` is written once; `outrider/migrations/<id>/journal/<seq>` are added one by one, each
with the hash of the one before, and none is ever changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import asdict, replace

Strategy = Literal["replicated", "singleton", "state", "cold"]
Undecided = Literal["hold", "rollback", "accept"]
Outcome = Literal["finalised", "rolled_back", "cancelled", "rehearsed"]
What = Literal[
    "planned",  # by a person
    "begun",  # a step, together with what it writes
    "rollback",  # from here on everything is undone
    "held",  # the way back cannot be finished: closed, a person decides
    "ended",
    # by people:
    "approved",
    "paused",
    "resumed",
    "asked_back",
    "resolved",
]
Resolution = Literal["keep", "back", "accept_loss"]  # the last is back without what the new one accepted
Question = Literal["cutover", "verdict"]  # verdict: that one which could not be decided is well enough
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Policy(Struct, frozen=True, omit_defaults=True):
    """How a migration is judged and who decides.

    canary: share of the calls that a new replica gets while it is judged beside the old ones; 0: none
    canary_s, verify_s: seconds that it is judged for at most before and after the cutover; a verdict may come earlier
    undecided: what follows when the time is over without a verdict: hold (a person decides), rollback, or accept
        (nothing speaks against it)
    approvals: people who must agree before the cutover
    """

    canary: float = 0.1
    canary_s: float = 10.0
    verify_s: float = 30.0
    undecided: Undecided = "hold"
    approvals: int = 0


class Given(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What somebody says of a policy; the rest is as it was."""

    canary: Annotated[float, Meta(ge=0, lt=1)] | None = None
    canary_s: Annotated[float, Meta(ge=0)] | None = None
    verify_s: Annotated[float, Meta(ge=0)] | None = None
    undecided: Undecided | None = None
    approvals: Annotated[int, Meta(ge=0)] | None = None

    def over(self, policy: Policy) -> Policy:
        """The policy with what is given."""
        return replace(policy, **{name: value for name, value in asdict(self).items() if value is not None})


class End(Struct, frozen=True, omit_defaults=True):
    """One end of a migration: an instance, its host, its version, and the key of the agent's `hosts` that it fills."""

    instance: str
    host: str
    version: str
    entry: str = ""


class RiskNote(Struct, frozen=True, omit_defaults=True):
    """What the risk was found to be when it was planned. `said`: the contributions, in words."""

    points: int
    band: str
    said: tuple[str, ...] = ()


class Spec(Struct, frozen=True, omit_defaults=True):
    """What is to be done, and why. Never changed.

    by, at: who asked for it, and when (Unix seconds)
    after: migrations that must be finalised before this one begins; if one is not, this one is cancelled
    rehearse: it ends before the cutover, and the new one goes again
    """

    id: str
    agent: str
    strategy: Strategy
    source: End
    target: End
    policy: Policy = field(default_factory=Policy)
    by: str = ""
    at: float = 0.0
    why: str = ""
    risk: RiskNote | None = None
    after: tuple[str, ...] = ()
    rehearse: bool = False

    @property
    def plan(self) -> str:
        """What it has in common with its rehearsal."""
        source, target = self.source, self.target
        return plan_digest(self.agent, self.strategy, (source.host, source.version), (target.host, target.version))

    @property
    def changes_version(self) -> bool:
        """Whether it is more than a move."""
        return self.source.version != self.target.version


def plan_digest(agent: str, strategy: Strategy, source: tuple[str, str], target: tuple[str, str]) -> str:
    """The same for two migrations that do the same: from that host and version to that one, in that way."""
    return hashlib.sha256(msgspec.json.encode([agent, strategy, source, target])).hexdigest()


class Entry(Struct, frozen=True, omit_defaults=True):
    """One line of a journal.

    at: Unix seconds; by: the shim's host, or a person
    step: of `begun`; outcome: of `ended`; resolution: of `resolved`; approves: of `approved`
    said: why, in words; evidence: what that was concluded from
    previous: hash of the entry before, of the spec for the first
    """

    seq: int
    what: What
    at: float
    by: str
    previous: str
    step: str = ""
    said: str = ""
    outcome: Outcome | None = None
    resolution: Resolution | None = None
    approves: Question | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


def digest(record: bytes) -> str:
    """The hash that the following entry carries: of the bytes as they stand in Consul, whatever fields are in them."""
    return hashlib.sha256(record).hexdigest()


class Journal(Struct, frozen=True):
    """A migration as it stands in Consul.

    head: the hash that the next entry carries, empty before the spec is written
    broken: what is wrong with it; nothing follows from a broken one
    unknown: what its spec says that this version of Outrider does not know, by name
    """

    spec: Spec
    entries: tuple[Entry, ...] = ()
    head: str = ""
    broken: str = ""
    unknown: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Of the migration."""
        return self.spec.id

    @property
    def ended(self) -> Entry | None:
        """The entry that ended it."""
        last = self.entries[-1] if self.entries else None
        return last if last and last.what == "ended" else None

    def followed_by(self, entry: Entry) -> Journal:
        """With one more, as this version writes it."""
        return replace(self, entries=(*self.entries, entry), head=digest(msgspec.json.encode(entry)))


def chained(spec: bytes, entries: Sequence[bytes]) -> Journal:
    """A journal by its documents, with what is wrong with it. Raises MsgspecError for a spec that cannot be read."""
    found: list[Entry] = []
    head, broken = digest(spec), ""
    for number, document in enumerate(entries):
        try:
            entry = msgspec.json.decode(document, type=Entry)
        except msgspec.MsgspecError as error:
            broken = broken or f"entry {number}: {error}"
            continue
        broken = broken or _breaks(entry, number, head)
        found.append(entry)
        head = digest(document)
    return Journal(msgspec.json.decode(spec, type=Spec), tuple(found), head, broken, unknown_fields(spec))


def unknown_fields(spec: bytes) -> tuple[str, ...]:
    """What only a later version can do: to leave it out could do what nobody wants.

    What is said of the risk is for people, and is no order.
    """
    said = msgspec.json.decode(spec)
    found = [name for name in said if name not in Spec.__struct_fields__]
    kinds: dict[str, type[Struct]] = {"source": End, "target": End, "policy": Policy}
    for part, kind in kinds.items():
        found += [f"{part}.{name}" for name in said.get(part, ()) if name not in kind.__struct_fields__]
    return tuple(found)


def _breaks(entry: Entry, number: int, head: str) -> str:
    if entry.seq != number:
        return f"entry {number} is missing"
    return "" if entry.previous == head else f"entry {number} does not follow from the one before it"


def next_entry(journal: Journal, what: What, at: float, by: str, **more: Any) -> Entry:
    """The entry that may follow."""
    head = journal.head or digest(msgspec.json.encode(journal.spec))
    return Entry(len(journal.entries), what, at, by, head, **more)
