"""Which instance gets the call."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest
from msgspec.structs import replace

from outrider.calls.endpoint import local_socket, socket_path
from outrider.calls.settings import Settings
from outrider.calls.target import Peer, Place, Target
from outrider.discovery.records import Answer, Instance

NOW = 1000.0


def target(count: int, *, local: str = "", settings: Settings | None = None) -> Target:
    made = Target(
        "Echo",
        settings or Settings(),
        is_local=lambda instance: instance.host == local,
        rng=random.Random(1),
        opened=lambda peer: None,
        now=NOW,
    )
    follow(made, *(Instance("Echo", f"Echo-{n}", f"h{n}", "10.0.0.1", n, {"call": n}) for n in range(1, count + 1)))
    return made


def follow(made: Target, *instances: Instance) -> None:
    made.follow(Answer("Echo", instances, 0.0, "catalogue"), NOW)


def peer(made: Target, number: int) -> Peer:
    return made.peers[number - 1]


def chosen(
    made: Target, calls: int = 300, tried: frozenset[Place] = frozenset(), *, repeatable: bool = True
) -> Counter[str]:
    counts: Counter[str] = Counter()
    for _ in range(calls):
        if found := made.choose(NOW, NOW + 1, repeatable, tried):
            counts[found[0].instance.instance] += 1
            made.record(found[0], found[1], NOW, 0.0, "none")
    return counts


def shut(made: Target, number: int) -> None:
    one = peer(made, number)
    one.breaker.record(one.breaker.acquire(NOW, NOW + 1, True), NOW, "lost")


def test_equals_share_the_calls() -> None:
    counts = chosen(target(3), 900)
    assert min(counts.values()) > 200


def test_of_two_the_one_with_fewer_calls_in_flight_is_taken() -> None:
    made = target(2)
    made.peers[0].in_flight = 5
    assert chosen(made) == {"Echo-2": 300}


def test_a_slow_one_is_avoided_and_comes_back_by_itself() -> None:
    made = target(2)
    for one, took_s in zip(made.peers, (0.3, 0.001), strict=True):
        one.took(NOW, took_s)
    assert chosen(made) == {"Echo-2": 300}
    later = NOW + 3.0
    assert made.peers[0].cost(later) == pytest.approx(made.peers[1].cost(later), rel=0.1)


def test_latency_rises_at_once_and_falls_slowly() -> None:
    one = target(1).peers[0]
    one.took(NOW, 0.001)
    one.took(NOW, 0.5)
    assert one.latency_s == 0.5
    one.took(NOW + 0.05, 0.001)
    assert 0.2 < one.latency_s < 0.5


def test_weight_and_slow_start_lessen_the_share() -> None:
    made = target(2)
    follow(made, *(replace(p.instance, weight=w) for p, w in zip(made.peers, (0.1, 1.0), strict=True)))
    assert made.peers[0].cost(NOW) == pytest.approx(10 * made.peers[1].cost(NOW))
    follow(
        made, *(replace(p.instance, weight=1.0, since=s) for p, s in zip(made.peers, (time.time(), 1.0), strict=True))
    )
    assert made.peers[0].cost(NOW) > 5 * made.peers[1].cost(NOW)


def test_this_host_is_preferred_while_its_instance_is_well() -> None:
    made = target(3, local="h2")
    assert chosen(made) == {"Echo-2": 300}
    shut(made, 2)
    assert "Echo-2" not in chosen(made)


def test_one_that_was_tried_or_drains_is_asked_last() -> None:
    made = target(3)
    assert "Echo-1" not in chosen(made, tried=frozenset({("Echo-1", "h1")}))
    peer(made, 2).draining_until = NOW + 1
    assert chosen(made, tried=frozenset({("Echo-1", "h1")})) == {"Echo-3": 300}
    assert sum(chosen(made, tried=frozenset({"Echo-1", "Echo-2", "Echo-3"})).values()) == 300


def test_an_open_circuit_gets_nothing_and_at_most_a_share_is_kept_away() -> None:
    made = target(4)
    shut(made, 1)
    assert "Echo-1" not in chosen(made)
    shut(made, 2)
    assert set(chosen(made)) == {"Echo-3", "Echo-4"}
    shut(made, 3)
    assert len(chosen(made)) == 2


def test_one_alone_may_be_kept_away() -> None:
    made = target(1)
    shut(made, 1)
    assert chosen(made) == {}


def test_what_is_ill_for_the_host_is_avoided_while_there_is_another() -> None:
    made = target(2)
    follow(made, replace(made.peers[0].instance, ill=True), made.peers[1].instance)
    assert chosen(made) == {"Echo-2": 300}
    follow(made, *(replace(p.instance, ill=True) for p in made.peers))
    assert sum(chosen(made).values()) == 300


def test_a_half_open_circuit_gets_the_next_call() -> None:
    made = target(3)
    shut(made, 1)
    peer(made, 1).breaker.half_open()
    found = made.choose(NOW, NOW + 1, True, frozenset())
    assert found is not None
    assert found[0] is peer(made, 1)


def test_a_restarted_instance_begins_anew_and_a_gone_one_is_forgotten() -> None:
    made = target(2)
    shut(made, 1)
    links = peer(made, 1).links
    follow(made, replace(made.peers[0].instance, since=5.0))
    assert len(made.peers) == 1
    assert peer(made, 1).breaker.is_closed
    assert peer(made, 1).links is not links


def test_an_instance_that_moves_is_two_peers_until_it_has_left() -> None:
    made = target(1)
    was = peer(made, 1)
    here = was.instance
    there = replace(here, host="h9", address="10.0.0.9")
    follow(made, here, there)
    assert made.peers[0] is was
    arriving = made.peers[1]
    follow(made, here, there)
    assert made.peers == [was, arriving]
    assert chosen(made, tried=frozenset({("Echo-1", "h1")})) == {"Echo-1": 300}
    assert made.choose(NOW, NOW + 1, True, frozenset({("Echo-1", "h1")}))[0] is arriving
    follow(made, there)
    assert made.peers == [arriving]


def test_a_socket_of_one_that_is_leaving_is_not_taken_for_the_one_that_serves_elsewhere(tmp_path, monkeypatch) -> None:
    here = peer(target(1), 1).instance
    path = socket_path(tmp_path, "Echo-1")
    path.parent.mkdir(parents=True)
    path.touch()
    assert local_socket(replace(here, host="h9"), tmp_path) == path
    monkeypatch.setenv("OUTRIDER_HOST", "h1")
    assert local_socket(here, tmp_path) == path
    assert local_socket(replace(here, host="h9"), tmp_path) is None
