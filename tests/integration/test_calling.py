"""Calls between real processes, over Unix sockets and TCP: what goes through, what goes wrong, what survives."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from outrider.calls import Client, Settings, frames
from outrider.calls.endpoint import socket_path
from outrider.calls.frames import Hello
from outrider.discovery.catalogue import CatalogueWriter
from outrider.discovery.records import Entry, Instance
from outrider.errors import (
    CallFailed,
    CallRefused,
    CallTimeout,
    ConnectionLost,
    NoInstance,
    Overloaded,
    UnknownAgent,
)

SCRIPT = Path(__file__).with_name("served_agent.py")
KILLED = -signal.SIGKILL


class Host:
    """A runtime folder with a catalogue, and the agents that run beside it."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self._writer = CatalogueWriter(runtime)
        self._instances: dict[str, Instance] = {}
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.held = False
        self.lost: tuple[str, ...] = ()

    def start(self, instance: str, *, tcp: bool = False, environment: dict[str, str] | None = None) -> int:
        """Start an instance and publish it; its port, 0 without."""
        words = [instance.partition("-")[0], instance, str(self.runtime), *(["0"] if tcp else [])]
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *words],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.processes[instance] = process
        assert process.stdout is not None
        port = int(process.stdout.readline())
        self.publish(instance, port)
        return port

    def publish(self, instance: str, port: int, since: float = 0.0) -> None:
        name = instance.partition("-")[0]
        host = f"the host of {instance}"
        self._instances[instance] = Instance(name, instance, host, "127.0.0.1", port, {"call": port}, since=since)
        self._write()

    def lose(self, instance: str) -> None:
        """It stands still, and is found to be on a host that is lost; others serve."""
        self.kill(instance, signal.SIGSTOP)
        self.lost = (self._instances.pop(instance).host,)
        self._write()

    def withdraw(self, instance: str) -> None:
        del self._instances[instance]
        self._write()

    def hold(self, held: bool) -> None:
        self.held = held
        self._write()

    def _write(self) -> None:
        names = {i.agent for i in self._instances.values()} | {p.partition("-")[0] for p in self.processes}
        entries = {}
        for name in names:
            found = tuple(i for i in self._instances.values() if i.agent == name)
            entries[name] = Entry(name, found, self.held, self.lost)
        self._writer.publish(entries)

    def kill(self, instance: str, number: int = signal.SIGKILL) -> None:
        self.processes[instance].send_signal(number)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.communicate()
        self._writer.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


@pytest.fixture
def client(host: Host) -> Iterator[Client]:
    made = Client(runtime=host.runtime)
    yield made
    made.close()


def until(condition: Callable[[], Any], within_s: float = 30.0) -> Any:
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_values_go_there_and_back(host: Host, client: Client, tcp: bool) -> None:
    host.start("Echo-1", tcp=tcp)
    document = {"text": "grüße", "none": None, "list": [1, 2.5, True], "bytes": b"\0\1", "map": {"a": {}}}
    assert client.call("Echo", "echo", document) == document
    for size in (3, 8192, 1_000_000):
        vector = np.arange(size, dtype="f4")
        assert np.array_equal(client.call("Echo", "echo", {"v": vector})["v"], vector)
    assert client.call("Echo", "total", {"vector": np.ones(10)}) == 10.0
    assert len(client.call("Echo", "large", {"size": 3_000_000}, timeout=10)) == 3_000_000
    assert client.call("Echo", "health")["status"] == "ready"


def test_types_are_what_was_asked_for(host: Host, client: Client) -> None:
    class Point(msgspec.Struct):
        x: int
        y: int

    host.start("Echo-1")
    assert client.call("Echo", "add", {"x": 1}, reply=Point) == Point(2, 1)
    assert client.call("Echo", "add", Point(5, 6), reply=Point) == Point(6, 7)
    with pytest.raises(CallFailed, match="not what was expected"):
        client.call("Echo", "add", {"x": 1}, reply=list[int])


def test_errors_say_who_what_and_why(host: Host, client: Client) -> None:
    host.start("Echo-1")
    with pytest.raises(CallFailed, match=r"Echo \(Echo-1\) fail: RuntimeError: as asked"):
        client.call("Echo", "fail")
    with pytest.raises(CallRefused, match="not today"):
        client.call("Echo", "refuse")
    with pytest.raises(CallRefused, match="has no method 'nope'; it has: add, echo"):
        client.call("Echo", "nope")
    with pytest.raises(CallRefused, match="Expected `float`, got `str`"):
        client.call("Echo", "sleep", {"s": "long"})
    with pytest.raises(CallFailed, match="cannot be sent"):
        client.call("Echo", "unsendable")
    with pytest.raises(CallRefused, match="larger than"):
        client.call("Echo", "large", {"size": 9 << 20})
    with pytest.raises(TypeError, match="cannot be sent"):
        client.call("Echo", "echo", {"x": object()})
    with pytest.raises(UnknownAgent):
        client.call("Ecko", "echo")
    assert client.call("Echo", "echo", {"still": "well"}) == {"still": "well"}
    assert client.targets()[0].peers[0].in_flight == 0


def test_a_fallback_is_returned_instead_of_an_error(host: Host, client: Client) -> None:
    host.start("Echo-1")
    assert client.call("Echo", "fail", fallback=None) is None
    assert client.call("Echo", "fail", fallback=lambda error: error.kind) == "failed"


@pytest.mark.parametrize("method", ["sleep", "wait"])
def test_a_call_ends_at_its_deadline(host: Host, client: Client, method: str) -> None:
    host.start("Echo-1")
    began = time.monotonic()
    with pytest.raises(CallTimeout):
        client.call("Echo", method, {"s": 30.0}, timeout=0.2)
    assert time.monotonic() - began < 5
    assert client.call("Echo", "echo", {"a": 1}) == {"a": 1}


def test_deadline_and_trace_travel_from_call_to_call(host: Host, client: Client) -> None:
    host.start("Echo-1")
    host.start("Next-1")
    answer = client.call("Echo", "left", {"agent": "Next"}, timeout=3.0)
    assert 0 < answer["next"]["left_s"] < answer["left_s"] < 3.0
    assert answer["trace"][3:35] == answer["next"]["trace"][3:35]
    assert answer["trace"] != answer["next"]["trace"]


def test_many_coroutines_share_a_connection_and_a_slow_one_delays_nobody(host: Host, client: Client) -> None:
    host.start("Echo-1")

    async def main() -> None:
        slow = asyncio.create_task(client.acall("Echo", "wait", {"s": 5.0}, timeout=10))
        for n in range(50):
            answers = await asyncio.gather(*(client.acall("Echo", "echo", {"n": m}) for m in (n, n + 1)))
            assert answers == [{"n": n}, {"n": n + 1}]
        assert not slow.done()
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)

    asyncio.run(main())
    assert client.targets()[0].peers[0].in_flight == 0


def test_threads_and_loops_may_share_a_client(host: Host, client: Client) -> None:
    host.start("Echo-1")

    def in_turn(n: int) -> bool:
        return all(client.call("Echo", "echo", {"n": n}, timeout=10) == {"n": n} for _ in range(50))

    def in_a_loop(n: int) -> bool:
        return asyncio.run(client.acall("Echo", "echo", {"n": n}, timeout=10)) == {"n": n}

    with ThreadPoolExecutor(6) as threads:
        done = [threads.submit(work, n) for n in range(6) for work in (in_turn, in_a_loop)]
        assert all(one.result() for one in done)


def test_more_than_it_takes_is_refused_at_once(host: Host, client: Client) -> None:
    host.start("Echo-1")  # four at one time, four wait
    with ThreadPoolExecutor(8) as threads:
        running = [threads.submit(client.call, "Echo", "sleep", {"s": 2.0}, timeout=10) for _ in range(8)]
        until(lambda: client.call("Echo", "health") == {**client.call("Echo", "health"), "running": 4, "waiting": 4})
        strict = Client(runtime=host.runtime, settings=Settings(attempts=1))
        with pytest.raises(Overloaded):
            strict.call("Echo", "sleep", {"s": 0.0}, timeout=5)
        assert not any(one.done() for one in running)
        assert [one.result() for one in running] == ["Echo-1"] * 8


def test_one_killed_in_the_middle_is_replaced_only_where_that_does_no_harm(host: Host, client: Client) -> None:
    host.start("Echo-1")
    host.start("Echo-2")
    with ThreadPoolExecutor(2) as threads:
        # An idle pair shares its calls; each method is asked until it runs on the one that will be killed.
        assert client.call("Echo", "who")["pid"]
        host.withdraw("Echo-2")
        again = threads.submit(client.call, "Echo", "wait_again", {"s": 1.0}, timeout=10, idempotent=True)
        once = threads.submit(client.call, "Echo", "wait", {"s": 1.0}, timeout=10)
        until(lambda: client.targets()[0].peers[0].in_flight == 2)
        host.publish("Echo-2", 0)
        host.kill("Echo-1")
        assert again.result() == "Echo-2"
        with pytest.raises(ConnectionLost) as lost:
            once.result()
    assert not lost.value.safe
    assert {client.call("Echo", "who")["instance"] for _ in range(20)} == {"Echo-2"}


def test_calls_under_way_to_a_lost_host_are_repeated_elsewhere_or_raised_at_once(host: Host, client: Client) -> None:
    port = host.start("Echo-1", tcp=True)
    assert client.call("Echo", "who")["instance"] == "Echo-1"

    def in_a_loop(method: str) -> Any:
        return asyncio.run(client.acall("Echo", method, {"s": 0.5}, timeout=60))

    with ThreadPoolExecutor(4) as threads:
        again = threads.submit(client.call, "Echo", "wait_again", {"s": 0.5}, timeout=60)
        once = threads.submit(client.call, "Echo", "wait", {"s": 0.5}, timeout=60)
        in_loops = [threads.submit(in_a_loop, method) for method in ("wait_again", "wait")]
        until(lambda: client.targets()[0].peers[0].in_flight == 4)
        other = host.start("Echo-2", tcp=True)
        host.lose("Echo-1")
        for repeated, raised in ((again, once), in_loops):
            assert repeated.result(30) == "Echo-2"
            with pytest.raises(ConnectionLost, match="its host is lost") as lost:
                raised.result(30)
            assert (lost.value.safe, lost.value.instance, lost.value.attempts) == (False, "Echo-1", 1)
    assert port != other


def test_calls_under_way_to_one_that_leaves_the_routing_are_finished(host: Host, client: Client) -> None:
    host.start("Echo-1", tcp=True)
    host.start("Echo-2", tcp=True)
    host.withdraw("Echo-2")
    with ThreadPoolExecutor(2) as threads:
        blocking = threads.submit(client.call, "Echo", "wait", {"s": 1.0}, timeout=60)
        in_a_loop = threads.submit(lambda: asyncio.run(client.acall("Echo", "wait", {"s": 1.0}, timeout=60)))
        until(lambda: client.targets() and client.targets()[0].peers[0].in_flight == 2)
        host.lost = ("the host of Echo-2",)
        host.withdraw("Echo-1")
        assert (blocking.result(30), in_a_loop.result(30)) == ("Echo-1", "Echo-1")


def test_a_frozen_one_costs_its_callers_their_time_only_for_a_moment(host: Host, client: Client) -> None:
    host.start("Echo-1")
    host.start("Echo-2")
    for _ in range(20):
        client.call("Echo", "who")
    host.kill("Echo-1", signal.SIGSTOP)
    failed = 0
    for _ in range(300):
        try:
            client.call("Echo", "who", timeout=0.1)
        except CallTimeout:
            failed += 1
    assert failed < 10
    host.kill("Echo-1", signal.SIGCONT)
    seen: Counter[str] = Counter()

    def both() -> bool:
        seen[client.call("Echo", "who", timeout=1)["instance"]] += 1
        return seen["Echo-1"] > 0

    until(both)


def test_a_circuit_opens_when_an_instance_is_gone_and_closes_when_it_is_back(host: Host, client: Client) -> None:
    host.start("Echo-1")
    assert client.call("Echo", "who")
    host.kill("Echo-1")
    host.processes["Echo-1"].wait()
    with pytest.raises((ConnectionLost, NoInstance)):
        client.call("Echo", "who", timeout=0.2)
    peer = client.targets()[0].peers[0]
    assert not peer.breaker.is_closed
    host.start("Echo-1")
    until(lambda: client.call("Echo", "who", timeout=1, fallback=None))
    until(lambda: client.call("Echo", "who", fallback=None) and peer.breaker.is_closed)


def test_graceful_ends_lose_no_call(host: Host, client: Client) -> None:
    """Each of three instances is stopped and started in turn while four threads call."""
    for n in (1, 2, 3):
        host.start(f"Echo-{n}")
    stop, errors, count = threading.Event(), [], Counter[str]()

    def work() -> None:
        while not stop.is_set():
            try:
                # Not idempotent: nothing but what is safe is repeated.
                count[client.call("Echo", "wait", {"s": 0.002}, timeout=5)] += 1
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in (1, 2, 3):
        before = count.total()
        host.kill(f"Echo-{n}", signal.SIGTERM)
        assert host.processes[f"Echo-{n}"].wait(10) == 0
        host.start(f"Echo-{n}")
        until(lambda: count.total() > before + 100)  # noqa: B023
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(count) == 3


def test_a_function_that_hangs_does_not_keep_a_stopped_agent_alive(host: Host, client: Client) -> None:
    host.start("Echo-1")
    with pytest.raises(CallTimeout):
        client.call("Echo", "sleep", {"s": 60.0}, timeout=0.2)
    host.kill("Echo-1", signal.SIGTERM)
    assert host.processes["Echo-1"].wait(10) == 0


def test_callers_wait_while_an_agent_is_held(host: Host, client: Client) -> None:
    host.start("Echo-1")
    host.hold(True)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.call, "Echo", "echo", {"a": 1}, timeout=10)
        with pytest.raises(CallTimeout):
            client.call("Echo", "echo", {"a": 1}, timeout=0.1)
        assert not waiting.done()
        host.hold(False)
        assert waiting.result(5) == {"a": 1}


def test_callers_wait_for_one_that_is_coming_back(host: Host, client: Client) -> None:
    host.start("Echo-1")
    assert client.call("Echo", "who")
    host.withdraw("Echo-1")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.call, "Echo", "echo", {"a": 1}, timeout=10)
        host.publish("Echo-1", 0)
        assert waiting.result(5) == {"a": 1}


def test_another_agent_on_a_port_that_changed_hands_does_not_work_for_us(host: Host, client: Client) -> None:
    port = host.start("Other-1", tcp=True)
    host.publish("Echo-1", port)
    with pytest.raises((ConnectionLost, NoInstance), match="it wants Echo, this is Other"):
        client.call("Echo", "who", timeout=0.3)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 64,
        frames.PREFIX.pack(1 << 30, 0),
        frames.PREFIX.pack(100, 0) + b"half",
        frames.PREFIX.pack(3, 0) + b"\xc1\xc1\xc1",
        frames.PREFIX.pack(7, 0) + b"\x94\x00\x01\xa2\xff\xff\xa0",
        b"".join(frames.encode(Hello(99, "Echo", "me"))),
    ],
    ids=["http", "noise", "oversized", "half", "no message", "no text", "version"],
)
def test_what_is_no_call_ends_its_connection_and_harms_nobody(host: Host, client: Client, data: bytes) -> None:
    host.start("Echo-1")
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(5)
        stranger.connect(str(socket_path(host.runtime, "Echo-1")))
        stranger.sendall(data)
        stranger.shutdown(socket.SHUT_WR)
        while stranger.recv(4096):
            pass
    assert client.call("Echo", "echo", {"a": 1}) == {"a": 1}
    assert host.processes["Echo-1"].poll() is None


def test_one_that_does_not_read_its_replies_is_not_asked_for_more(host: Host, client: Client) -> None:
    host.start("Echo-1")
    before = memory(host.processes["Echo-1"].pid)
    with socket.socket(socket.AF_UNIX) as lazy:
        lazy.connect(str(socket_path(host.runtime, "Echo-1")))
        lazy.settimeout(1.0)
        body = msgspec.Raw(msgspec.msgpack.encode({"size": 1 << 20}))
        lazy.sendall(b"".join(frames.encode(Hello(frames.VERSION, "Echo", "lazy"))))
        requests = (frames.encode(frames.Request(n, "large", 60_000_000, "", 0, body)) for n in range(1, 100_000))
        with pytest.raises(TimeoutError):
            lazy.sendall(b"".join(part for request in requests for part in request))
        assert memory(host.processes["Echo-1"].pid) - before < 64 << 20
        assert client.call("Echo", "echo", {"a": 1}) == {"a": 1}


def memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_child_of_a_fork_has_connections_of_its_own(host: Host, client: Client) -> None:
    host.start("Echo-1")
    assert client.call("Echo", "echo", {"who": "parent"}) == {"who": "parent"}
    pid = os.fork()
    if pid == 0:
        well = all(client.call("Echo", "echo", {"who": "child"}) == {"who": "child"} for _ in range(50))
        os._exit(0 if well else 1)
    for _ in range(50):
        assert client.call("Echo", "echo", {"who": "parent"}) == {"who": "parent"}
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
