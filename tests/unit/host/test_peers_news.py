"""News is told four times at once, then carried; what was heard is believed until something newer is known."""

from __future__ import annotations

import pytest

from outrider.host.peers.news import CARRY_S, HOLD_S, REPEATS_S, TELL_S, Inbox, Outbox, beats
from outrider.host.peers.wire import MAX_BYTES, Codec, Item


@pytest.fixture
def outbox() -> Outbox:
    box = Outbox()
    box.report("Echo-1", True, 10.0, "exited: signal 9", 10.0)
    return box


def test_news_is_told_at_once_and_three_times_more(outbox: Outbox) -> None:
    told = []
    while (due := outbox.next_due()) is not None:
        assert outbox.due(due - 0.001) == []
        told += [(due, item.instance, item.down) for item in outbox.due(due)]
    assert told == [(10.0 + delay, "Echo-1", True) for delay in REPEATS_S]


def test_a_late_loop_tells_once_what_was_due_twice(outbox: Outbox) -> None:
    assert len(outbox.due(10.1)) == 1
    assert outbox.next_due() == 10.0 + REPEATS_S[-1]


def test_a_recovery_replaces_the_death_and_is_repeated_anew(outbox: Outbox) -> None:
    outbox.due(10.0)
    outbox.report("Echo-1", False, 10.01, "", 10.01)
    assert outbox.due(10.01) == [Item("Echo-1", False, 0.0, "")]
    assert outbox.carried(10.03) == [Item("Echo-1", False, 0.02, "")]


def test_news_is_carried_and_what_is_still_down_is_told_on(outbox: Outbox) -> None:
    outbox.report("Echo-2", False, 10.0, "", 10.0)
    assert len(outbox.carried(9.9 + CARRY_S)) == 2
    assert outbox.carried(10.0 + CARRY_S) == []
    assert outbox.lasting(10.0 + CARRY_S) == [Item("Echo-1", True, CARRY_S, "exited: signal 9")]
    assert outbox.lasting(10.0 + TELL_S) == []


def test_of_what_was_taken_away_nothing_more_is_said(outbox: Outbox) -> None:
    outbox.withdraw("Echo-1")
    assert (outbox.due(10.0), outbox.lasting(10.0), outbox.next_due()) == ([], [], None)


def test_a_receiver_knows_until_the_instance_is_up() -> None:
    inbox = Inbox()
    assert inbox.hear("gpu2", [Item("Echo-1", True, 0.0, "died")], 10.0)
    assert not inbox.hear("gpu2", [Item("Echo-1", True, 0.1, "died")], 10.1)
    assert inbox.down == {("gpu2", "Echo-1"): "died"}
    assert not inbox.hear("gpu3", [Item("Echo-1", False, 0.0)], 10.2)
    assert inbox.hear("gpu2", [Item("Echo-1", False, 0.0)], 10.2)
    assert inbox.down == {}


def test_a_receiver_forgets_what_is_not_told_again() -> None:
    inbox = Inbox()
    inbox.hear("gpu2", [Item("Echo-1", True, 0.0, "died")], 10.0)
    inbox.hear("gpu2", [Item("Echo-1", True, 5.0, "died")], 15.0)
    assert not inbox.expire(14.9 + HOLD_S)
    assert inbox.expire(15.0 + HOLD_S)
    assert inbox.down == {}


def test_a_sender_that_started_anew_told_nothing_yet() -> None:
    inbox = Inbox()
    for host in ("gpu2", "gpu3"):
        inbox.hear(host, [Item("Echo-1", True, 0.0, "died")], 10.0)
    assert inbox.clear("gpu2")
    assert inbox.down == {("gpu3", "Echo-1"): "died"}


def test_only_earlier_news_gives_way_to_consul() -> None:
    inbox = Inbox()
    inbox.hear("gpu2", [Item("Echo-1", True, 1.0, "died")], 10.0)
    assert not inbox.forget("gpu2", "Echo-1", 8.9)
    assert not inbox.forget("gpu2", "Echo-2", 11.0)
    assert inbox.forget("gpu2", "Echo-1", 9.1)
    assert inbox.down == {}


def test_however_much_there_is_to_say_each_datagram_fits() -> None:
    codec = Codec(bytes(32), "h" * 200, 2**62)
    outbox = Outbox()
    for number in range(200):
        outbox.report(f"Instance-{number}-" + "n" * (number % 240), True, 0.0, "ü" * 300, 0.0)
    items = outbox.due(0.0)
    said = list(beats([f"host-{number}" for number in range(100)], items))
    assert all(len(codec.seal(beat)) <= MAX_BYTES for beat in said)
    assert [item for beat in said for item in beat.news] == items
    assert all(beat.suspects == said[0].suspects and len(beat.suspects) > 20 for beat in said)


def test_with_nothing_to_say_there_is_one_heartbeat() -> None:
    assert [(beat.suspects, beat.news) for beat in beats((), ())] == [((), ())]
