"""Never two holders: the rules alone, and in a simulated world in which everything fails; without any one rule, not."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from outrider.failover import rules
from outrider.failover.rules import Candidate, may_promise, next_epoch, take_at, taken
from outrider.registry.layout import Handover
from outrider.registry.leases import LOCK_DELAY_S, Lease, LeaseDoc, Member
from unit.failover import simulation
from unit.failover.simulation import World, worlds

BOTH = (Member("A-1", "h1"), Member("A-2", "h2"))


def candidate(**changes: object) -> Candidate:
    given = {"members": BOTH, "ready": True, "free_since": 100.0} | changes
    return Candidate("A", "A-2", "h2", **given)  # type: ignore[arg-type]


def lease(session: str = "", **changes: object) -> Lease:
    given = {"epoch": 7, "holder": "A-1", "host": "h1", "members": BOTH, "state": "held"} | changes
    return Lease(LeaseDoc("A", **given), 10, session)  # type: ignore[arg-type]


def test_a_lease_that_was_given_up_is_taken_at_once() -> None:
    assert take_at(candidate(), lease(state="released")) == 100.0


def test_a_lease_that_is_handed_over_is_left_to_the_one_it_is_meant_for() -> None:
    given_up = lease(state="released")
    ours, theirs = Handover("A-2", "h2", 7), Handover("A-1", "h3", 7)
    late = candidate(members=(*BOTH[:1], Member("A-1", "h3"), *BOTH[1:]))
    assert take_at(replace(late, handover=ours), given_up) == 100.0
    assert take_at(replace(late, handover=theirs), given_up) == 100.0 + rules.HEIR_S + rules.RANK_S
    # Meant of another epoch, or not given up: as ever.
    assert take_at(replace(late, handover=replace(theirs, epoch=6)), given_up) == 100.0 + rules.RANK_S
    assert take_at(replace(late, handover=ours), lease()) == 100.0 + LOCK_DELAY_S + rules.RANK_S


def test_the_lease_itself_says_whom_it_was_handed_over_to() -> None:
    assert take_at(candidate(), lease(state="released", heir=BOTH[1])) == 100.0
    assert take_at(candidate(), lease(state="released", heir=BOTH[0])) == 100.0 + rules.HEIR_S
    assert taken(candidate(), lease(state="released", heir=BOTH[1]), 1.0).heir is None


@pytest.mark.parametrize(
    ("of", "may"),
    [
        (lease(state="released", heir=BOTH[1]), True),
        (lease(state="released", holder="A-2", host="h2"), True),  # by itself, and nobody had it since
        (lease(state="released"), False),
        (lease(state="released", heir=BOTH[0]), False),
        (lease(state="released", holder="A-2", host="h2", heir=BOTH[0]), False),
        (lease(state="held", heir=BOTH[1]), False),
        (lease(state="held", holder="A-2", host="h2"), False),
        (lease(), False),
        (None, False),
    ],
)
def test_a_reserve_takes_what_it_has_the_state_of(of: Lease | None, may: bool) -> None:
    assert (take_at(candidate(reserve=True), of) < math.inf) is may


def test_a_reserve_takes_nothing_from_a_consul_that_was_put_back() -> None:
    later = LeaseDoc("A", epoch=8, holder="A-1", host="h1", members=BOTH)
    assert take_at(candidate(reserve=True, known=later), lease(state="released", heir=BOTH[1])) == math.inf
    assert take_at(candidate(reserve=True, known=later), None) == math.inf


def test_a_reserve_that_holds_the_lease_by_its_own_clock_goes_on() -> None:
    assert take_at(candidate(reserve=True, own_until=101.0), None) == 100.0


def test_a_lease_that_was_lost_is_waited_out_from_when_it_was_seen_free() -> None:
    assert take_at(candidate(), lease()) == 100.0 + LOCK_DELAY_S


@pytest.mark.parametrize(
    ("one", "of"),
    [
        (candidate(ready=False), lease()),
        (candidate(free_since=None), lease()),
        (candidate(), lease(session="somebody's")),
        (candidate(), lease(sole=True)),
    ],
    ids=["not ready", "not seen free", "held", "another host's alone"],
)
def test_what_may_not_be_taken_is_not(one: Candidate, of: Lease) -> None:
    assert take_at(one, of) == math.inf


def test_a_holder_that_was_alone_is_waited_for_until_its_host_leaves_the_inventory() -> None:
    alone = lease(sole=True)
    assert take_at(candidate(hosts=frozenset({"h1", "h2"})), alone) == math.inf
    assert take_at(candidate(hosts=frozenset({"h2"})), alone) == 100.0 + LOCK_DELAY_S
    assert take_at(candidate(), lease(sole=True, host="h2")) == 100.0


def test_a_promise_is_kept() -> None:
    assert take_at(candidate(promised_until=200.0), lease(state="released")) == 200.0


def test_who_is_no_member_waits_until_the_members_can_keep_the_holder_going_no_longer() -> None:
    stranger = Candidate("A", "A-3", "h3", BOTH, ready=True, free_since=100.0)
    assert take_at(stranger, lease()) > 100.0 + rules.FAILSAFE_S + rules.LEASE_S
    assert take_at(stranger, lease(members=BOTH[:1])) < 100.0 + LOCK_DELAY_S + 1.0
    assert take_at(stranger, lease(state="released")) < 101.0


def test_a_key_that_is_not_there_may_have_been_lost_with_its_holder() -> None:
    assert take_at(candidate(), None) == 100.0 + LOCK_DELAY_S
    assert take_at(candidate(sole=True), None) == 100.0
    assert take_at(candidate(own_until=101.0), None) == 100.0


def test_who_is_a_member_is_remembered_when_consul_lost_it_or_was_put_back() -> None:
    stranger = Candidate("A", "A-3", "h3", BOTH, ready=True, free_since=100.0, known=lease().doc)
    for of in (None, lease(epoch=6, state="released")):
        assert take_at(stranger, of) > 100.0 + rules.FAILSAFE_S
        assert take_at(candidate(known=lease().doc), of) == 100.0 + LOCK_DELAY_S


def test_epochs_grow_over_a_restored_consul_and_a_clock_that_was_put_back() -> None:
    assert next_epoch(candidate(), lease(epoch=7), 5) == 8
    assert next_epoch(candidate(known=LeaseDoc("A", epoch=20)), lease(epoch=7), 5) == 21
    assert next_epoch(candidate(known=LeaseDoc("A", epoch=20)), lease(epoch=7), 1000) == 1000
    assert next_epoch(candidate(), None, 0) == 1


def test_what_is_taken_says_who_and_why() -> None:
    doc = taken(candidate(), lease(state="released", reason="exited: killed by SIGKILL"), 5.0)
    assert (doc.holder, doc.host, doc.epoch, doc.state) == ("A-2", "h2", 5000, "held")
    assert doc.reason == "A-1 gave it up: exited: killed by SIGKILL"


def test_the_lease_and_the_time_to_stop_fit_into_the_lock_delay() -> None:
    assert rules.LEASE_S + rules.STOP_S < LOCK_DELAY_S


def test_a_member_promises_nothing_against_a_later_holder_or_itself() -> None:
    holding = {"holder": "A-1", "epoch": 7, "now": 100.0, "taking": False}
    assert may_promise(candidate(), lease(session="s"), **holding)
    assert may_promise(candidate(), None, **holding)
    assert not may_promise(candidate(), lease(session="s", epoch=8), **holding)
    assert not may_promise(candidate(), lease(session="s", holder="A-3"), **holding)
    assert not may_promise(candidate(known=LeaseDoc("A", epoch=8)), None, **holding)
    assert not may_promise(candidate(own_until=101.0), lease(), **holding)
    assert may_promise(candidate(own_until=99.0), lease(), **holding)
    assert not may_promise(candidate(), lease(), **{**holding, "taking": True})


def violations(count: int, **options: int) -> int:
    """Worlds with two holders at one time, or with an epoch that went back."""
    return sum(bool(world.overlaps) or world.epochs != sorted(set(world.epochs)) for world in worlds(count, **options))


def test_there_are_never_two_holders() -> None:
    assert violations(150) == 0
    assert violations(50, hosts=4, members=3) == 0


def test_the_simulated_world_is_no_dead_one() -> None:
    """In most worlds the lease is taken several times, and held most of the time."""
    taken_often = [len(world.epochs) for world in worlds(20)]
    assert sorted(taken_often)[10] >= 3
    shares = [len({at for at, *_ in world.worked}) / (60.0 / 0.05) for world in worlds(20)]
    assert sorted(shares)[10] > 0.4


def test_no_holder_works_on_a_state_that_lacks_a_write() -> None:
    found = list(worlds(150, state=True, members=3))
    assert not any(world.stale or world.overlaps for world in found)
    assert sum(world.handed_over for world in found) > 100


def test_without_the_rule_of_the_reserve_some_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_has_state", lambda *_: True)
    assert any(world.stale for world in worlds(150, state=True, members=3))


def longer_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "LEASE_S", LOCK_DELAY_S + 0.5)


def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby that takes what Consul gives it; and Consul forgets its lock delay with its data."""
    monkeypatch.setattr(rules, "LOCK_DELAY_S", 0.0)


def anybody_is_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeaseDoc, "has", lambda *_: True)


def epochs_of_consul_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "next_epoch", lambda candidate, lease, _: (lease.doc.epoch if lease else 0) + 1)


def promises_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(candidate: Candidate, lease: Lease | None) -> float:
        return rules.take_at(replace(candidate, promised_until=-math.inf), lease)

    monkeypatch.setattr(simulation, "take_at", impatient)


def promises_without_time_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "PROMISE_S", rules.LEASE_S)


def members_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_last_doc", lambda _, lease: lease.doc if lease else None)


def released_while_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "release_after_s", lambda *, ended: 0.0)


def reads_that_are_not_consistent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "CONSISTENT", False)


def no_dead_man(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but its shim ends a process."""
    monkeypatch.setattr(simulation, "left_ns", lambda *_: 1)


GUARDS = {
    "order of release": released_while_at_work,
    "lease length": longer_lease,
    "consistent read": reads_that_are_not_consistent,
    "patience": no_patience,
    "members": anybody_is_a_member,
    "members, also when Consul lost them": members_forgotten,
    "epoch": epochs_of_consul_alone,
    "promises": promises_not_kept,
    "promises, with the time to stop": promises_without_time_to_stop,
    "dead-man": no_dead_man,
}


@pytest.mark.parametrize("without", GUARDS.values(), ids=GUARDS.keys())
def test_without_any_one_rule_there_are(
    without: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch)
    assert violations(150) > 0


def test_worlds_are_repeatable() -> None:
    one, other = World(5), World(5)
    for world in (one, other):
        world.run(30.0)
    assert one.worked == other.worked
