"""One call from choice to outcome, driven by hand: what is retried, what is waited for, what is raised."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import msgspec
import pytest
from msgspec.structs import replace

from outrider.calls import context, frames
from outrider.calls.frames import Refusal, Reply
from outrider.calls.plan import FAIR_S, TRIAL_SHARE, Plan
from outrider.calls.settings import Settings
from outrider.calls.tally import MOST_METHODS, OTHER
from outrider.calls.target import Peer, Target
from outrider.discovery.records import Answer, Instance, Role
from outrider.errors import (
    CallError,
    CallFailed,
    CallRefused,
    CallTimeout,
    ConnectionLost,
    Draining,
    NoInstance,
    NotHolder,
    Overloaded,
)

NOW = 1000.0


@pytest.fixture(autouse=True)
def nobody_above() -> Iterator[None]:
    """No call is being worked on."""
    token = context.deadline.set(None)
    yield
    context.deadline.reset(token)


def answer(count: int, *, held: bool = False) -> Answer:
    found = tuple(Instance("Echo", f"Echo-{n}", "h", "10.0.0.1", n, {}) for n in range(1, count + 1))
    return Answer("Echo", found, 0.0, "catalogue", held)


def target(settings: Settings | None = None) -> Target:
    return Target(
        "Echo",
        settings or Settings(),
        is_local=lambda instance: False,
        rng=random.Random(1),
        opened=lambda peer: None,
        now=NOW,
    )


def plan(of: Target, timeout_s: float = 1.0, *, idempotent: bool = False) -> Plan:
    return Plan(of, "say", timeout_s, idempotent, NOW, random.Random(1))


def asked(one: Plan, given: Answer, now: float = NOW) -> Peer:
    peer = one.next_peer(given, now)
    assert isinstance(peer, Peer)
    return peer


def reply(value: object, epoch: int = 0) -> Reply:
    return Reply(1, epoch, msgspec.Raw(msgspec.msgpack.encode(value)))


def test_an_answer_is_decoded_and_counted() -> None:
    of, given = target(), answer(1)
    one = plan(of)
    peer = asked(one, given)
    assert peer.in_flight == 1
    assert one.answered(reply({"a": 1}), None, frames.untyped, NOW + 0.01) == {"a": 1}
    one.finish("ok", NOW + 0.01)
    assert (peer.in_flight, of.tallies["say"].outcomes) == (0, {"ok": 1})
    assert peer.latency_s == pytest.approx(0.01)


def test_an_attempt_is_in_need_if_its_host_was_lost_before_it() -> None:
    one, given = plan(target(), idempotent=True), answer(1)
    asked(one, given)
    assert not one.in_need
    one.failed(ConnectionLost("its host is lost"), NOW)
    now = NOW + 0.5
    one.target.peers[0].breaker.close()
    asked_again = [one.next_peer(replace(given, lost=("h",)), now) for _ in range(2)]
    assert isinstance(asked_again[1], Peer)
    assert one.in_need


def test_methods_whose_names_are_made_of_data_are_counted_together() -> None:
    of = target()
    for number in range(3 * MOST_METHODS):
        of.tally(f"say-{number}").add("ok", 0.01)
    assert len(of.tallies) == MOST_METHODS + 1
    assert of.tallies[OTHER].outcomes == {"ok": 2 * MOST_METHODS}
    assert of.tally("say-0") is of.tallies["say-0"]


@pytest.mark.parametrize(
    "error", [ConnectionLost("x", safe=True), Overloaded("x"), Draining("x")], ids=lambda e: e.kind
)
def test_what_nobody_worked_on_is_sent_to_another(error: CallError) -> None:
    one = plan(target())
    first = asked(one, answer(2))
    one.failed(error, NOW)
    assert asked(one, answer(2)) is not first


def test_who_is_no_holder_is_asked_again_ever_later_until_the_time_is_over() -> None:
    one = plan(target())
    now, refused_at = NOW, [NOW]
    asked(one, answer(1))
    while now < NOW + 0.9:
        one.failed(NotHolder("x"), now)
        refused_at.append(now)
        while isinstance(pause_s := one.next_peer(answer(1), now), float):
            now += pause_s
    pauses = [later - earlier for earlier, later in itertools.pairwise(refused_at)][1:]
    assert pauses[0] < 0.01
    assert max(pauses) < 0.07
    assert len(pauses) < 30
    with pytest.raises(NotHolder):
        one.failed(NotHolder("x"), one.until)


def test_whoever_is_named_instead_of_who_is_no_holder_is_asked_at_once() -> None:
    one = plan(target())
    asked(one, answer(1))
    one.failed(NotHolder("x"), NOW)
    assert isinstance(one.next_peer(answer(1), NOW), float)
    again = msgspec.structs.replace(answer(1), instances=(msgspec.structs.replace(answer(1).instances[0], epoch=2),))
    assert isinstance(one.next_peer(again, NOW), Peer)


@pytest.mark.parametrize("error", [ConnectionLost("x"), CallTimeout("x"), CallFailed("x")], ids=lambda e: e.kind)
def test_what_may_have_been_worked_on_is_repeated_only_if_that_does_no_harm(error: CallError) -> None:
    one = plan(target(), idempotent=True)
    first = asked(one, answer(2))
    one.failed(error, NOW)
    assert asked(one, answer(2)) is not first
    other = plan(target())
    asked(other, answer(2))
    with pytest.raises(type(error)) as raised:
        other.failed(type(error)("x"), NOW)
    assert (raised.value.agent, raised.value.method, raised.value.attempts) == ("Echo", "say", 1)
    assert raised.value.instance in ("Echo-1", "Echo-2")
    assert raised.value.message.startswith(f"Echo ({raised.value.instance}) say: ")


def test_a_refusal_is_final_and_no_illness() -> None:
    of = target()
    for _ in range(20):
        one = plan(of, idempotent=True)
        asked(one, answer(1))
        with pytest.raises(CallRefused) as refused:
            one.answered(Refusal(1, 0, "refused", "no such thing"), None, frames.untyped, NOW)
        with pytest.raises(CallRefused):
            one.failed(refused.value, NOW)
    assert of.peers[0].breaker.is_closed


def test_retries_end_with_the_attempts_and_with_the_budget() -> None:
    one = plan(target(), idempotent=True)
    for _ in range(2):
        asked(one, answer(5))
        one.failed(CallFailed("x"), NOW)
    asked(one, answer(5))
    with pytest.raises(CallFailed):
        one.failed(CallFailed("x"), NOW)
    safe = plan(target())
    for _ in range(5):
        asked(safe, answer(5))
        safe.failed(ConnectionLost("x", safe=True), NOW)
    poor = target(Settings(retry_budget=0.0, consecutive=1000, minimum_calls=1000))
    retried = 0
    for _ in range(30):
        other = plan(poor, idempotent=True)
        asked(other, answer(2))
        try:
            other.failed(CallFailed("x"), NOW)
        except CallFailed:
            continue
        retried += 1
        other.abandon(NOW)
    assert retried == 10


def test_the_same_instance_is_asked_again_only_after_a_pause() -> None:
    one = plan(target(), idempotent=True)
    asked(one, answer(1))
    one.failed(CallFailed("x"), NOW)
    pause_s = one.next_peer(answer(1), NOW)
    assert isinstance(pause_s, float)
    assert 0 < pause_s <= 0.02
    assert isinstance(one.next_peer(answer(1), NOW + pause_s), Peer)


def test_a_held_agent_is_waited_for_until_the_deadline() -> None:
    one = plan(target(), 0.5)
    assert isinstance(one.next_peer(answer(1, held=True), NOW), float)
    assert isinstance(one.next_peer(answer(1, held=True), NOW + 0.4), float)
    with pytest.raises(CallTimeout):
        one.next_peer(answer(1, held=True), NOW + 0.5)
    other = plan(target(), 0.5)
    other.next_peer(answer(1, held=True), NOW)
    assert isinstance(other.next_peer(answer(1), NOW + 0.1), Peer)


def test_an_agent_that_was_there_a_moment_ago_is_waited_for() -> None:
    of = target()
    asked(plan(of), answer(1)).in_flight -= 1
    assert isinstance(plan(of).next_peer(answer(0), NOW + 0.9), float)
    late = Plan(of, "say", 1.0, False, NOW + 5, random.Random(1))
    with pytest.raises(NoInstance, match="nobody serves Echo"):
        late.next_peer(answer(0), NOW + 5)


def test_one_that_never_was_there_is_not_waited_for() -> None:
    with pytest.raises(NoInstance):
        plan(target()).next_peer(answer(0), NOW)


def test_when_every_circuit_is_open_it_says_why() -> None:
    of = target()
    one = plan(of, 30.0)
    asked(one, answer(1))
    with pytest.raises(ConnectionLost):
        one.failed(ConnectionLost("gone"), NOW)
    later = Plan(of, "say", 30.0, False, NOW, random.Random(1))
    assert isinstance(later.next_peer(answer(1), NOW), float)  # a trial is near
    of.peers[0].breaker.open_for_s = 50.0
    assert isinstance(later.next_peer(answer(1), NOW + 1), float)  # it was there a moment ago
    with pytest.raises(NoInstance, match=r"every circuit to Echo is open .*connection lost"):
        later.next_peer(answer(1), NOW + 3)


def test_the_deadline_of_the_call_being_worked_on_bounds_its_own_calls() -> None:
    context.deadline.set(NOW + 0.2)
    one = plan(target(), 10.0)
    asked(one, answer(1))
    assert one.attempt_until == NOW + 0.2
    with pytest.raises(CallTimeout):
        plan(target(), 10.0).next_peer(answer(1), NOW + 0.3)


def test_a_trial_leaves_time_for_another_instance() -> None:
    of = target()
    first = plan(of)
    lost = asked(first, answer(2))
    with pytest.raises(ConnectionLost):
        first.failed(ConnectionLost("gone"), NOW)
    lost.breaker.half_open()
    one = plan(of, 1.0, idempotent=True)
    assert asked(one, answer(2)) is lost
    assert one.attempt_until == pytest.approx(NOW + TRIAL_SHARE)
    one.failed(CallTimeout("no answer"), NOW + TRIAL_SHARE)
    assert asked(one, answer(2), NOW + TRIAL_SHARE) is not lost


def test_who_had_no_time_is_not_to_blame_for_having_run_out_of_it() -> None:
    of = target(Settings(consecutive=1))
    context.deadline.set(NOW + FAIR_S / 10)
    one = plan(of, 1.0)
    peer = asked(one, answer(1))
    with pytest.raises(CallTimeout):
        one.failed(CallTimeout("no answer"), NOW + FAIR_S / 10)
    assert peer.breaker.is_closed


def test_a_holder_of_an_earlier_epoch_is_not_believed() -> None:
    of = target()
    one = plan(of)
    asked(one, answer(1))
    one.answered(reply(1, epoch=7), None, frames.untyped, NOW)
    assert of.epoch == 7
    other = plan(of)
    asked(other, answer(1))
    with pytest.raises(NotHolder):
        other.answered(reply(1, epoch=6), None, frames.untyped, NOW)


def test_giving_up_gives_back_the_place_in_flight_and_the_permit() -> None:
    of = target()
    one = plan(of)
    peer = asked(one, answer(1))
    one.abandon(NOW)
    one.abandon(NOW)
    assert peer.in_flight == 0


def test_callers_of_a_singleton_wait_for_its_next_holder_while_its_circuit_is_open() -> None:
    def holder(role: Role) -> Answer:
        return Answer("Echo", (Instance("Echo", "Echo-1", "h", "10.0.0.1", 1, {}, role=role),), 0.0, "catalogue")

    for role, waits in (("holder", True), ("replica", False)):
        of = target()
        one = plan(of)
        asked(one, holder(role))
        with pytest.raises(ConnectionLost):
            one.failed(ConnectionLost("x"), NOW, final=True)
        later = NOW + of.settings.absent_s + 0.1
        of.peers[0].breaker.open_for_s = 60.0
        another = Plan(of, "say", 5.0, False, later, random.Random(1))
        if waits:
            assert isinstance(another.next_peer(holder(role), later), float)
        else:
            with pytest.raises(NoInstance):
                another.next_peer(holder(role), later)
