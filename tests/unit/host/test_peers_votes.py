"""Who is down, by a clock that the test moves."""

from __future__ import annotations

import pytest

from outrider.host.peers.roster import HEARD_S, WATCHERS, Roster, watchers_of
from outrider.host.peers.votes import BEAT_S, DOUBT_S, LATE_S, VOTE_S, Votes, to_next_beat


class Watch:
    """One host's votes about `others`, whom it hears each tick unless they are silent."""

    def __init__(self, *others: str) -> None:
        self.votes, self.others, self.now = Votes("me"), others, 100.0
        everyone = ("me", *others)
        self.watched = {host: tuple(h for h in everyone if h != host) for host in others}
        self.say: dict[str, tuple[str, ...]] = {}
        self.tick(3)

    def tick(self, count: int = 1, *, silent: tuple[str, ...] = (), late_s: float = 0.0) -> None:
        for _ in range(count):
            self.now += BEAT_S + late_s
            self.votes.tick(self.watched, self.now)
            for host in self.others:
                if host not in silent:
                    self.votes.heard(host, self.say.get(host, ()), self.now)

    @property
    def down(self) -> set[str]:
        return set(self.votes.down(self.watched, self.now))


def test_of_two_hosts_the_one_decides() -> None:
    watch = Watch("a")
    watch.tick(4, silent=("a",))
    assert (watch.votes.suspects, watch.down) == (set(), set())
    watch.tick(2, silent=("a",))
    assert (watch.votes.suspects, watch.down) == ({"a"}, {"a"})
    watch.votes.heard("a", (), watch.now)
    assert (watch.votes.suspects, watch.down) == (set(), set())


def test_who_was_never_heard_is_not_missed() -> None:
    watch = Watch("a", "b")
    watch.others = ("b",)
    watch.votes = Votes("me")
    watch.tick(30)
    assert watch.votes.suspects == set()


def test_of_three_hosts_both_others_must_agree() -> None:
    watch = Watch("a", "b")
    watch.tick(8, silent=("a",))
    assert (watch.votes.suspects, watch.down) == ({"a"}, set())
    watch.say = {"b": ("a",)}
    watch.tick(silent=("a",))
    assert watch.down == {"a"}
    watch.say = {}
    watch.tick(silent=("a",))
    assert watch.down == set()


@pytest.mark.parametrize(("against", "down"), [(2, set()), (3, {"a"})])
def test_three_of_five_are_the_majority_and_strangers_have_no_vote(against: int, down: set[str]) -> None:
    watch = Watch("a", "b", "c", "d", "e", "stranger")
    watch.watched["a"] = ("me", "b", "c", "d", "e")
    watch.say = {host: ("a",) for host in ("stranger", *("b", "c", "d")[: against - 1])}
    watch.tick(8, silent=("a",))
    assert watch.down == down


def test_who_does_not_watch_a_host_takes_the_watchers_word_and_casts_no_vote() -> None:
    watch = Watch("a", "b", "c", "d")
    watch.watched["a"] = ("b", "c", "d")
    watch.say = {"b": ("a",), "c": ("a",)}
    watch.tick(20, silent=("a",))
    assert (watch.votes.suspects, watch.down) == (set(), {"a"})
    # Whom it happened to hear and now must watch has not been silent yet.
    watch.watched["a"] = ("me", "b", "c", "d")
    watch.tick(silent=("a",))
    assert watch.votes.suspects == set()


def test_a_vote_that_is_not_repeated_runs_out() -> None:
    watch = Watch("a", "b")
    watch.say = {"b": ("a",)}
    watch.tick(silent=("a",))
    watch.say = {}
    watch.tick(8, silent=("a", "b"))
    assert watch.down >= {"a"}
    watch.tick(int(VOTE_S / BEAT_S), silent=("a", "b"))
    assert watch.down == set()


def test_nobody_votes_oneself_down() -> None:
    watch = Watch("a", "b")
    watch.say = {"a": ("me",), "b": ("me",)}
    watch.tick()
    assert watch.down == set()


def test_after_running_late_a_shim_doubts_itself() -> None:
    watch = Watch("a", "b")
    watch.tick(silent=("a", "b"), late_s=5.0)
    assert (watch.votes.suspects, watch.votes.doubts) == (set(), 1)
    # Those that come back in the doubt were never suspected; who does not is, when the doubt is over.
    watch.tick(int(DOUBT_S / BEAT_S) - 1, silent=("a",))
    assert watch.votes.suspects == set()
    watch.tick(2, silent=("a",))
    assert watch.votes.suspects == {"a"}


def test_late_ticks_push_the_timers_forward() -> None:
    watch = Watch("a")
    watch.tick(4, silent=("a",))
    watch.tick(silent=("a",), late_s=0.3)
    assert watch.votes._heard["a"] == pytest.approx(watch.now - 0.5)


def test_a_little_late_is_not_late() -> None:
    watch = Watch("a")
    watch.tick(5, silent=("a",), late_s=0.1)
    assert (watch.votes.suspects, watch.votes.doubts) == ({"a"}, 0)


def test_doubt_takes_no_vote_back_that_was_cast_before() -> None:
    watch = Watch("a")
    watch.tick(8, silent=("a",))
    watch.tick(silent=("a",), late_s=1.0)
    assert watch.down == {"a"}


def test_who_said_goodbye_is_not_missed() -> None:
    watch = Watch("a", "b")
    watch.votes.bye("a")
    watch.tick(30, silent=("a",))
    assert watch.votes.suspects == set()
    watch.tick()
    watch.tick(8, silent=("a",))
    assert watch.votes.suspects == {"a"}


def test_a_host_that_left_the_fleet_is_forgotten() -> None:
    watch = Watch("a", "b")
    watch.tick(8, silent=("a",))
    del watch.watched["a"]
    watch.others = ("b",)
    watch.tick()
    assert watch.votes.suspects == set()


@pytest.mark.parametrize("count", range(2, 7))
def test_up_to_six_hosts_everyone_watches_everyone(count: int) -> None:
    hosts = [f"h{n}" for n in range(count)]
    assert all(set(watchers_of(host, hosts)) == set(hosts) - {host} for host in hosts)


def test_in_a_large_fleet_five_watch_each_and_the_work_is_spread() -> None:
    hosts = [f"h{n}" for n in range(100)]
    watched = {host: watchers_of(host, reversed(hosts)) for host in hosts}
    assert watched == {host: watchers_of(host, hosts) for host in hosts}
    assert {len(set(watchers)) for watchers in watched.values()} == {WATCHERS}
    load = [sum(host in watchers for watchers in watched.values()) for host in hosts]
    assert max(load) <= 4 * WATCHERS
    # One host more moves at most one watcher of each.
    moved = [len(set(watchers_of(host, [*hosts, "new"])) - set(watchers)) for host, watchers in watched.items()]
    assert max(moved) == 1


def test_the_roster_is_consuls_and_what_was_heard_of_late() -> None:
    roster = Roster("me")
    roster.heard("a", "10.0.0.1", 0.0)
    assert (roster.addresses, roster.watchers) == ({"a": "10.0.0.1"}, ("a",))
    roster.update({"me": "10.0.0.9", "a": "10.0.0.2", "b": "10.0.0.3"}, 1.0)
    assert roster.addresses == {"a": "10.0.0.2", "b": "10.0.0.3"}
    assert set(roster.watched["b"]) == {"me", "a"}
    # Consul lost its data: who is heard stays.
    roster.update({}, 2.0)
    assert roster.addresses == {"a": "10.0.0.1"}
    roster.update({}, HEARD_S + 1.0)
    assert roster.addresses == {}


@pytest.mark.parametrize("wall", [1e9, 1e9 + 0.001, 1e9 + 0.0499, 1e9 + 0.0501, 1e9 + 0.0999])
def test_hosts_beat_together_and_none_beats_late(wall: float) -> None:
    after = to_next_beat(wall)
    beats = (wall + after) / BEAT_S
    assert abs(beats - round(beats)) < 1e-5
    assert BEAT_S / 2 < after <= 1.5 * BEAT_S + 1e-6
    assert after - BEAT_S < LATE_S
