"""The run lock on a real Consul: one holder, named, and free again after every kind of end."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable

import pytest

from outrider.errors import ConsulUnreachable, Locked
from outrider.registry.client import connect
from outrider.registry.lock import RunLock

WITHIN_S = 30.0


@pytest.fixture
def key(request) -> str:
    """A lock of this test alone."""
    return f"outrider/locks/{request.node.name}"


def eventually(says: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not says():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def session_of(server, key: str) -> str:
    return json.loads(server.client.get(f"/v1/kv/{key}").body)[0].get("Session", "")


def test_a_second_run_is_told_who_holds_it(shared_consul, key) -> None:
    other = connect(shared_consul.address)
    with RunLock(shared_consul.client, key, "playbook by anna"):
        with pytest.raises(Locked, match="playbook by anna") as caught, RunLock(other, key, "ben"):
            pytest.fail("two holders")
        assert socket.gethostname() in caught.value.message
        assert time.strftime("%Y-%m-%d") in caught.value.message
        assert "30 s" in caught.value.hint
    with RunLock(other, key, "ben") as lock:
        lock.check()


def test_it_is_free_at_once_after_an_exception_and_leaves_no_session(shared_consul, key) -> None:
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), RunLock(shared_consul.client, key, "x"):
            _ = 1 / 0
    assert session_of(shared_consul, key) == ""
    sessions = json.loads(shared_consul.client.get("/v1/session/list").body)
    assert key not in {session["Name"] for session in sessions}


def test_one_who_is_refused_leaves_no_session(shared_consul, key) -> None:
    with RunLock(shared_consul.client, key, "first"):
        with pytest.raises(Locked), RunLock(shared_consul.client, key, "second"):
            pytest.fail("two holders")
        sessions = json.loads(shared_consul.client.get("/v1/session/list").body)
        assert [session["Name"] for session in sessions].count(key) == 1


def test_of_many_at_once_one_gets_it(shared_consul, key) -> None:
    start, done = threading.Barrier(8), threading.Event()
    got: list[str] = []
    refused: list[str] = []

    def run(name: str) -> None:
        client = connect(shared_consul.address)
        start.wait()
        try:
            with RunLock(client, key, name):
                got.append(name)
                done.wait(WITHIN_S)
        except Locked:
            refused.append(name)

    threads = [threading.Thread(target=run, args=(f"run {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(refused) == 7)
    done.set()
    for thread in threads:
        thread.join()
    assert len(got) == 1


@pytest.mark.parametrize("how", ["session", "key"])
def test_a_lock_that_was_taken_away_is_noticed(shared_consul, key, how) -> None:
    with RunLock(shared_consul.client, key, "x", renew_s=0.05) as lock:
        lock.check()
        if how == "session":
            shared_consul.client.put(f"/v1/session/destroy/{session_of(shared_consul, key)}")
        else:
            shared_consul.client.delete(f"/v1/kv/{key}")
        eventually(lambda: lock.lost)
        with pytest.raises(Locked, match="was lost"):
            lock.check()


def test_ending_does_not_release_the_lock_of_whoever_has_it_now(shared_consul, key) -> None:
    first = RunLock(shared_consul.client, key, "first", renew_s=60)
    first.__enter__()
    shared_consul.client.put(f"/v1/session/destroy/{session_of(shared_consul, key)}")
    eventually(lambda: session_of(shared_consul, key) == "")
    second = RunLock(connect(shared_consul.address), key, "second")
    time.sleep(0.01)  # the lock delay, 1 ms, runs in Consul where nobody can see its end
    second.__enter__()
    first.__exit__(None, None, None)
    assert session_of(shared_consul, key) != ""
    with pytest.raises(Locked, match="another run is at work: second on"), RunLock(shared_consul.client, key, "third"):
        pytest.fail("two holders")
    second.check()
    second.__exit__(None, None, None)


def test_a_run_that_was_paused_too_long_knows_it_before_consul_says_so(shared_consul, key) -> None:
    with RunLock(shared_consul.client, key, "x", ttl_s=10, renew_s=3600) as lock:
        lock._sure_until = time.monotonic() - 0.01
        with pytest.raises(Locked, match="was lost"):
            lock.check()


def test_a_long_run_keeps_it(shared_consul, key) -> None:
    with RunLock(shared_consul.client, key, "x", ttl_s=10, renew_s=0.05) as lock:
        sure_until = lock._sure_until
        eventually(lambda: lock._sure_until > sure_until + 0.2)
        lock.check()


def test_without_consul_it_counts_as_lost_before_another_may_have_it(consul) -> None:
    key = "outrider/locks/x"
    with RunLock(consul.client, key, "x", ttl_s=10, renew_s=0.1) as lock:
        consul.stop()
        lock.check()
        lock._sure_until = time.monotonic() + 0.2  # rather than wait out the shortest time to live
        eventually(lambda: lock.lost)
        with pytest.raises(Locked, match="was lost"):
            lock.check()
    with pytest.raises(ConsulUnreachable), RunLock(consul.client, key, "y"):
        pytest.fail("nobody gave it")


def test_a_holder_that_died_frees_it_by_its_time_to_live(shared_consul, key) -> None:
    """Its thread and its release never run, as after kill -9."""
    dead = RunLock(shared_consul.client, key, "dead", ttl_s=10, renew_s=3600)
    dead._session = shared_consul.client.create_session(key, ttl_s=10, lock_delay_s=0.001)
    assert dead._acquire()
    began = time.monotonic()
    with pytest.raises(Locked, match="another run is at work: dead on"), RunLock(shared_consul.client, key, "next"):
        pytest.fail("two holders")
    eventually(lambda: session_of(shared_consul, key) == "", within_s=25)
    assert time.monotonic() - began > 10
    with RunLock(shared_consul.client, key, "next") as lock:
        lock.check()
