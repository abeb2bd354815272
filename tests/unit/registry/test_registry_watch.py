"""The rules of blocking queries, against answers that a real Consul gives only on its bad days."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from outrider.registry import pace, watch
from outrider.registry.client import Reply, connect
from outrider.registry.watch import Contact, Watch, next_index

WITHIN_S = 20.0


@pytest.fixture(autouse=True)
def _quick_back_off(monkeypatch) -> None:
    monkeypatch.setattr(pace, "BACKOFF_MAX_S", 0.02)


class Watching:
    """A watch on a fake Consul whose answers are put into a queue; it blocks, as Consul does, while there is none."""

    def __init__(self, fake_consul, answers, **options) -> None:
        self.script: queue.Queue[Callable] = queue.Queue()
        self.changes: queue.Queue[Reply] = queue.Queue()
        self.contacts: queue.Queue[Contact] = queue.Queue()
        self._answers = answers
        self.fake = fake_consul(lambda asked: self.script.get()(asked))
        callbacks = {"on_change": self.changes.put, "on_contact": self.contacts.put, **options}
        self.watch = Watch(connect(self.fake.address), "/v1/kv/x", rng=random.Random(1), **callbacks)

    def says(self, body: bytes = b"{}", index: int | str = 1, **fields) -> None:
        headers = {"X-Consul-Index": index, **fields.pop("headers", {})}
        self.script.put(self._answers(body=body, headers=headers, **fields))

    def next_change(self) -> Reply:
        return self.changes.get(timeout=WITHIN_S)

    def next_contact(self) -> Contact:
        return self.contacts.get(timeout=WITHIN_S)

    def indexes(self, count: int) -> list[str | None]:
        """The indexes of the first `count` questions, once so many were asked."""
        deadline = time.monotonic() + WITHIN_S
        while len(self.fake.asked) < count:
            assert time.monotonic() < deadline, f"only {len(self.fake.asked)} questions"
            time.sleep(0.005)
        return [asked.params.get("index", [None])[0] for asked in self.fake.asked[:count]]


@pytest.fixture
def watching(fake_consul, answers) -> Iterator[Callable[..., Watching]]:
    made: list[Watching] = []

    def make(**options) -> Watching:
        made.append(Watching(fake_consul, answers, **options))
        made[-1].watch.start()
        return made[-1]

    yield make
    for each in made:
        each.watch.stop()
        for _ in range(5):
            each.says()  # frees the server's thread


@pytest.mark.parametrize(
    ("old", "new", "waits_on"), [(0, 7, 7), (7, 7, 7), (7, 8, 8), (9, 10, 10), (74, 23, 0), (0, 0, 1), (7, 0, 0)]
)
def test_the_index_to_wait_on(old, new, waits_on) -> None:
    assert next_index(old, new) == waits_on


def test_the_first_question_does_not_wait_and_the_next_waits_on_its_index(watching) -> None:
    one = watching()
    one.says(b"a", 9)
    one.says(b"b", 10)
    assert (one.next_change().body, one.next_change().body) == (b"a", b"b")
    assert one.indexes(3) == [None, "9", "10"]
    assert [asked.params.get("wait") for asked in one.fake.asked[:2]] == [None, ["10000ms"]]


def test_an_index_that_goes_back_starts_again(watching) -> None:
    one = watching()
    one.says(b"a", 74)
    one.says(b"b", 23)
    one.says(b"b", 23)
    one.says(b"c", 24)
    assert [one.next_change().body for _ in range(3)] == [b"a", b"b", b"c"]
    assert one.indexes(5) == [None, "74", None, "23", "24"]


def test_an_early_answer_without_a_newer_index_is_followed_by_short_waits(watching) -> None:
    """So does Consul answer as a restore begins; the restored store wakes nobody."""
    one = watching()
    one.says(b"a", 74)
    one.says(b"a", 74)
    one.says(b"restored", 23)
    assert [one.next_change().body for _ in range(2)] == [b"a", b"restored"]
    one.indexes(4)
    assert [asked.params.get("wait") for asked in one.fake.asked[:3]] == [None, ["10000ms"], ["500ms"]]


def test_an_index_of_0_is_never_waited_on(watching) -> None:
    one = watching()
    one.says(b"a", 0)
    one.says(b"b", 5)
    assert [one.next_change().body for _ in range(2)] == [b"a", b"b"]
    assert one.indexes(3) == [None, "1", "5"]


def test_a_wake_up_without_a_change_calls_nobody(watching) -> None:
    one = watching()
    for index in (5, 6, 7):
        one.says(b"same", index)
    one.says(b"other", 8)
    assert [one.next_change().body for _ in range(2)] == [b"same", b"other"]
    assert one.changes.empty()
    assert [one.next_contact().ok for _ in range(4)] == [True] * 4


def test_a_key_that_goes_away_is_a_change(watching) -> None:
    one = watching()
    one.says(b"", 5)
    one.says(b"", 6, status=404)
    assert [one.next_change().status for _ in range(2)] == [200, 404]


@pytest.mark.parametrize("status", [429, 500, 503, 403])
def test_after_an_error_it_asks_again_without_waiting(watching, status) -> None:
    one = watching()
    one.says(b"a", 5)
    one.says(b"No cluster leader", status=status)
    one.says(b"a", 5)
    one.says(b"b", 6)
    contacts = [one.next_contact() for _ in range(4)]
    assert [contact.ok for contact in contacts] == [True, False, True, True]
    assert str(status) in contacts[1].error or "refuses" in contacts[1].error
    assert [one.next_change().body for _ in range(2)] == [b"a", b"b"]
    assert one.indexes(4) == [None, "5", None, "5"]


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"\x00\xff\r\n\r\n"])
def test_answers_that_break_off_or_make_no_sense_are_survived(watching, raw) -> None:
    one = watching()
    one.says(raw=raw)
    if raw != b"\x00\xff\r\n\r\n":
        one.says(raw=raw)  # what was dropped is asked once more by the connection itself
    one.says(b"a", 5)
    assert not one.next_contact().ok
    assert one.next_change().body == b"a"


def test_an_index_that_is_no_number_is_survived(watching) -> None:
    one = watching()
    one.says(b"a", "soon")
    one.says(b"a", 5)
    assert "not Consul" in one.next_contact().error
    assert one.next_change().body == b"a"


def test_contact_tells_whether_there_is_a_leader_and_when(watching) -> None:
    one = watching()
    before = time.monotonic()
    one.says(b"a", 5, headers={"X-Consul-KnownLeader": "false"})
    one.says(b"a", 5, headers={"X-Consul-KnownLeader": "true"})
    first, second = one.next_contact(), one.next_contact()
    assert (first.ok, first.known_leader, first.error) == (True, False, "")
    assert second.known_leader
    assert before <= first.at <= second.at <= time.monotonic()


def test_back_off_grows_with_failures_in_a_row_and_starts_again_after_an_answer(watching, monkeypatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(watch, "backoff_s", lambda failures, rng: seen.append(failures) or 0.0)
    one = watching()
    for status in (500, 500, 500, 200, 500):
        one.says(status=status)
    assert [one.next_contact().ok for _ in range(5)] == [False, False, False, True, False]
    one.indexes(6)
    assert seen == [1, 2, 3, 1]


def test_a_callback_that_fails_does_not_end_the_watch(watching, caplog) -> None:
    def fails(reply: Reply) -> None:
        got.put(reply)
        raise RuntimeError("boom")

    got: queue.Queue[Reply] = queue.Queue()
    one = watching(on_change=fails)
    one.says(b"a", 5)
    one.says(b"b", 6)
    assert [got.get(timeout=WITHIN_S).body for _ in range(2)] == [b"a", b"b"]
    assert "boom" in caplog.text


def test_a_watch_that_wakes_without_end_is_paced(fake_consul, answers, monkeypatch) -> None:
    monkeypatch.setattr(watch, "BURST", 5)
    monkeypatch.setattr(watch, "RATE_PER_S", 10.0)
    index = iter(range(1, 10_000))
    fake = fake_consul(lambda asked: answers(headers={"X-Consul-Index": next(index)})(asked))
    one = Watch(connect(fake.address), "/v1/kv/x", on_change=lambda _: None)
    began = time.monotonic()
    one.start()
    time.sleep(0.5)
    one.stop()
    assert 5 <= len(fake.asked) <= 5 + 10 * (time.monotonic() - began) + 1


def test_stop_cuts_a_waiting_query_short_and_joins(watching) -> None:
    one = watching()
    one.says(b"a", 5)
    one.next_change()
    one.indexes(2)
    began = time.monotonic()
    one.watch.stop()
    assert time.monotonic() - began < 5
    assert not one.watch._thread.is_alive()


def test_no_callback_follows_stop(watching) -> None:
    one = watching()
    one.says(b"a", 5)
    one.next_change()
    one.next_contact()
    one.indexes(2)
    one.watch.stop()
    one.says(b"b", 6)
    assert one.changes.empty()
    assert one.contacts.empty(), "being cut off by oneself is no failure"


def test_stop_may_be_called_from_a_callback_and_twice(watching) -> None:
    stopped = threading.Event()
    one = watching(on_change=lambda _: (one.watch.stop(), stopped.set()))
    one.says(b"a", 5)
    assert stopped.wait(WITHIN_S)
    one.watch.stop()
    assert not one.watch._thread.is_alive()


def test_a_watch_that_never_started_can_be_stopped(fake_consul, answers) -> None:
    Watch(connect(fake_consul(answers()).address), "/v1/kv/x", on_change=lambda _: None).stop()
