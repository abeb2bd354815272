"""When a lease may be taken, and with which epoch. Pure; every time is in seconds of the own monotonic clock.

What keeps two holders apart are clocks that only run: a holder stops `LEASE_S` after the sending of the last question
that confirmed its lock, and takes at most `STOP_S` for that. Whoever takes a lock that was not given up waits
`LOCK_DELAY_S` after it saw it free, which is longer (Gray and Cheriton, "Leases", 1989; the fail-safe rule is
Patroni's).
"""

from __future__ import annotations

import math

from msgspec import Struct
from msgspec.structs import replace

from outrider.registry.layout import Handover
from outrider.registry.leases import LOCK_DELAY_S, Lease, LeaseDoc, Member

LEASE_S = 1.4
STOP_S = 0.4
PROMISE_S = LEASE_S + STOP_S + 0.05  # for so long a member that lets a holder go on does not take its lease
CONFIRM_S = 0.35  # between questions: three may fail before a lease runs out
# For so long a holder that Consul does not reach goes on while all members let it: an election takes three seconds,
# and the loss of a quorum as long as people need.
FAILSAFE_S = 120.0
RANK_S = 0.02  # standbys try one after the other
HEIR_S = 1.0  # and for so long leave a lease that is handed over to the one that it is meant for

assert LEASE_S + STOP_S < LOCK_DELAY_S


class Candidate(Struct):
    """An instance here that may hold its agent's lease.

    members: all instances that the placement names now
    hosts: those of the inventory, empty while they are not known
    sole: no other host may run the agent
    ready: it is well, so that it may hold the lease
    free_since: when the lease was first seen without a holder; None while it has one
    promised_until: until then it has promised not to take the lease
    known: what was last known here of the lease, by its epoch; Consul may have lost it, or know less
    own_until: end of the lease that it holds itself; the past if it holds none
    handover: whom the placement wants the lease of an epoch to pass to
    reserve: it may hold the lease only with the state of the last holder
    moving: a migration moves that state, and says who may take the lease with it
    """

    agent: str
    instance: str
    host: str
    members: tuple[Member, ...]
    hosts: frozenset[str] = frozenset()
    sole: bool = False
    ready: bool = False
    free_since: float | None = None
    promised_until: float = -math.inf
    known: LeaseDoc | None = None
    own_until: float = -math.inf
    handover: Handover | None = None
    reserve: bool = False
    moving: bool = False

    @property
    def seen_epoch(self) -> int:
        """The highest epoch that is known here."""
        return self.known.epoch if self.known else 0


def take_at(candidate: Candidate, lease: Lease | None) -> float:
    """From when on it may try to take the lease; infinity if it may not while things are as they are."""
    if not candidate.ready or candidate.free_since is None or (lease and lease.session):
        return math.inf
    return max(candidate.free_since + _patience_s(candidate, lease), candidate.promised_until)


def _patience_s(candidate: Candidate, lease: Lease | None) -> float:
    """For how long after it was seen free the lease may still be somebody's, or is left to somebody better."""
    if candidate.own_until >= (candidate.free_since or 0.0):
        return 0.0  # it is still ours: Consul lost the key
    doc = _last_doc(candidate, lease)
    if candidate.reserve and not _has_state(candidate, doc):
        return math.inf
    if doc is None:
        # Never held, or lost by Consul: nobody here can tell.
        return 0.0 if candidate.sole else LOCK_DELAY_S
    if doc.state == "released":
        heir = _heir(candidate, doc)
        if heir == Member(candidate.instance, candidate.host):
            return 0.0
        return (HEIR_S if heir else 0.0) + RANK_S * _rank(candidate, doc)
    if doc.sole and (doc.host in candidate.hosts or not candidate.hosts):
        # Its holder goes on without Consul for as long as it lives: that its host is gone must be said by the operator,
        # who takes it out of the inventory.
        return 0.0 if doc.host == candidate.host else math.inf
    if len(doc.members) > 1 and not doc.has(candidate.instance, candidate.host):
        # Its holder may go on without Consul while the other members let it; we are none of those.
        return FAILSAFE_S + LEASE_S + LOCK_DELAY_S
    return LOCK_DELAY_S + RANK_S * _rank(candidate, doc)


def _last_doc(candidate: Candidate, lease: Lease | None) -> LeaseDoc | None:
    """Consul's, unless Consul lost it or was put back to an earlier one: then that of the holder known to be later."""
    known = candidate.known
    if known is None or (lease and lease.doc.epoch >= known.epoch):
        return lease.doc if lease else None
    return replace(known, state="held")


def _has_state(candidate: Candidate, doc: LeaseDoc | None) -> bool:
    """Whether the last state is its own: it was handed over to it, or given up by itself and handed over to nobody."""
    if doc is None or doc.state != "released":
        return False
    return (doc.heir or Member(doc.holder, doc.host)) == Member(candidate.instance, candidate.host)


def _heir(candidate: Candidate, doc: LeaseDoc) -> Member | None:
    """Whom the lease was given up for."""
    if doc.heir:
        return doc.heir
    meant = candidate.handover
    return Member(meant.instance, meant.host) if meant and meant.epoch == doc.epoch else None


def _rank(candidate: Candidate, doc: LeaseDoc) -> int:
    """Its place among those that wait, in the order of the placement."""
    waiting = [member for member in candidate.members if member != Member(doc.holder, doc.host)]
    own = Member(candidate.instance, candidate.host)
    return waiting.index(own) if own in waiting else len(waiting)


def release_after_s(*, ended: bool) -> float:
    """How long after the end of a lease that is given up others may have it. `ended`: nothing is left of its holder."""
    return 0.0 if ended else STOP_S


def next_epoch(candidate: Candidate, lease: Lease | None, unix_ms: int) -> int:
    """Higher than any before, also where Consul was restored from an old copy or a clock was put back."""
    return max((lease.doc.epoch if lease else 0) + 1, candidate.seen_epoch + 1, unix_ms)


def taken(candidate: Candidate, lease: Lease | None, now_unix: float) -> LeaseDoc:
    """What the key says once the candidate has it."""
    return LeaseDoc(
        agent=candidate.agent,
        epoch=next_epoch(candidate, lease, int(now_unix * 1000)),
        holder=candidate.instance,
        host=candidate.host,
        members=candidate.members,
        sole=candidate.sole,
        state="held",
        since=now_unix,
        reason=_reason(candidate, lease),
    )


def _reason(candidate: Candidate, lease: Lease | None) -> str:
    if lease is None or not lease.doc.holder:
        return "first holder"
    before = lease.doc
    how = f"gave it up: {before.reason}" if before.state == "released" else "lost it without a word"
    if before.holder != candidate.instance:
        return f"{before.holder} {how}"
    return f"taken again; it {how}" if before.host == candidate.host else f"on {before.host} it {how}"


def may_promise(
    candidate: Candidate | None, lease: Lease | None, holder: str, epoch: int, now: float, *, taking: bool
) -> bool:
    """Whether a member lets the holder of that epoch go on without Consul, and waits for `PROMISE_S` itself.

    Not while it holds or takes the lease itself, nor when it knows of a later holder.
    """
    if taking or (candidate and (candidate.own_until > now or candidate.seen_epoch > epoch)):
        return False
    if lease is None:
        return True
    return lease.doc.epoch < epoch or (lease.doc.epoch == epoch and lease.doc.holder == holder)
