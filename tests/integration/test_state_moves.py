"""State between two real processes: what moves, what is refused, and what is left when something breaks."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket as socketlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from outrider.calls.channel import open_channel
from outrider.calls.endpoint import socket_path
from outrider.calls.frames import Refusal
from outrider.calls.state_folder import CHUNK, OURS, digest
from outrider.calls.state_orders import key_file
from outrider.calls.state_scan import Scanner
from outrider.daemon import state_copy
from outrider.daemon.state_copy import Copied, Way, move, pre_copy
from outrider.discovery.records import Instance
from outrider.errors import CallError, CallFailed, CallRefused, ConnectionLost

SCRIPT = Path(__file__).with_name("ledger_agent.py")
SIZE = 16 * CHUNK
KEY = "the key of the placement"


class Pair:
    """Two instances of one agent on one host, each with a state folder."""

    def __init__(self, folder: Path) -> None:
        self.runtime = folder
        self.states = {name: folder / f"state-{name}" for name in ("Ledger-1", "Ledger-2")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "moves").mkdir()

    def start(self, name: str, *, size: int = 0, most: int = 0, **more: str) -> Instance:
        """Run one; no file of it grows beyond `most` bytes."""
        socket = socket_path(self.runtime, name)
        socket.parent.mkdir(parents=True, exist_ok=True)
        key_file(self.runtime, name).write_text(KEY)
        ours = {"RUNTIME": str(self.runtime), "AGENT": "Ledger", "INSTANCE": name, "STATE": str(self.states[name])}
        env = os.environ | {f"OUTRIDER_{k}": v for k, v in ours.items()} | {"LEDGER_BYTES": str(size)} | more

        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        self.processes[name] = subprocess.Popen([sys.executable, SCRIPT], env=env, preexec_fn=limit if most else None)
        until = time.monotonic() + 15
        while not socket.exists():
            assert time.monotonic() < until
            assert self.processes[name].poll() is None
            time.sleep(0.005)
        return Instance("Ledger", name, "", "127.0.0.1", 0, {})

    def content(self, name: str) -> str:
        """The digest of its state, by another reader than its own."""
        return digest(Scanner(self.states[name]).scan())

    def way(self, key: str = KEY) -> Way:
        return Way(key, self.runtime)

    def call(self, instance: Instance, method: str, **arguments: Any) -> Any:
        async def ask() -> Any:
            channel = await open_channel(instance, "test", self.runtime, 5.0, None)
            try:
                now = time.monotonic()
                answer, _ = await channel.exchange(method, arguments, "", 0, now + 5, now)
            finally:
                channel.close()
            if isinstance(answer, Refusal):
                raise CallFailed(answer.message)
            return msgspec.msgpack.decode(answer.body)

        return asyncio.run(ask())

    def move(self, source: Instance, heir: Instance, timeout_s: float = 10.0) -> Copied:
        return asyncio.run(move(self.way(), source, heir, timeout_s))

    def pre_copy(self, source: Instance, heir: Instance) -> Copied:
        return asyncio.run(pre_copy(source, heir, KEY, self.runtime, None, 10.0))

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()
        socket_path(self.runtime, name).unlink()


def wait_for(what: Callable[[], bool], within_s: float = 15.0) -> None:
    until = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    try:
        yield made
    finally:
        for process in made.processes.values():
            process.kill()
            process.wait()


def test_a_state_moves_whole_with_what_was_only_in_memory(pair: Pair) -> None:
    source, heir = pair.start("Ledger-1", size=SIZE), pair.start("Ledger-2")
    (pair.states["Ledger-1"] / "folder").mkdir(mode=0o750)
    (pair.states["Ledger-1"] / "folder" / "empty").touch(mode=0o640)
    (pair.states["Ledger-1"] / "link").symlink_to("folder/empty")
    (pair.states["Ledger-2"] / "of an earlier life").write_text("goes")
    for number in range(20):
        pair.call(source, "add", number=number)

    copied = pair.move(source, heir)

    assert copied.bytes == copied.total_bytes > SIZE
    assert pair.content("Ledger-2") == pair.content("Ledger-1") == copied.digest
    assert pair.call(heir, "known") == list(range(20))
    assert not (pair.states["Ledger-2"] / "of an earlier life").exists()


def test_after_a_pre_copy_only_what_changed_moves_and_until_then_nothing_is_replaced(pair: Pair) -> None:
    source, heir = pair.start("Ledger-1", size=SIZE), pair.start("Ledger-2")
    pair.call(heir, "add", number=7)
    first = pair.pre_copy(source, heir)
    assert first.bytes == SIZE
    assert pair.call(heir, "known") == [7]
    assert not (pair.states["Ledger-2"] / "data").exists()

    pair.call(source, "add", number=1)
    second = pair.move(source, heir)

    assert CHUNK <= second.bytes < 2 * CHUNK
    assert pair.call(heir, "known") == [1]
    assert pair.content("Ledger-2") == pair.content("Ledger-1")

    # And back again: what both have is not sent.
    pair.call(heir, "add", number=2)
    third = pair.move(heir, source)
    assert third.bytes < CHUNK
    assert pair.call(source, "known") == [1, 2]
    assert pair.content("Ledger-1") == pair.content("Ledger-2")


def a_free_port() -> int:
    with socketlib.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_between_hosts_a_state_goes_by_tcp(pair: Pair) -> None:
    """Also where a socket of the same name is at hand: an instance that moves has its name on both hosts."""
    ends = []
    for name, host in (("Ledger-1", "one"), ("Ledger-2", "two")):
        port = a_free_port()
        made = pair.start(name, size=CHUNK, OUTRIDER_PORT_CALL=str(port), OUTRIDER_HOST=host)
        socket_path(pair.runtime, name).unlink()
        socket_path(pair.runtime, name).touch()  # who connects to it instead fails
        ends.append(replace(made, host=host, port=port, ports={"call": port}))
    asyncio.run(move(Way(KEY, pair.runtime, host="elsewhere"), *ends, 10.0))
    assert pair.content("Ledger-2") == pair.content("Ledger-1")


def test_a_move_is_no_call_of_the_agent_and_calls_are_counted(pair: Pair) -> None:
    source, heir = pair.start("Ledger-1"), pair.start("Ledger-2")
    pair.call(source, "add", number=1)
    with pytest.raises(CallFailed):
        pair.call(source, "add", number="no number")
    pair.move(source, heir)

    health = pair.call(source, "health")
    assert (health["calls"], health["failed"], sum(health["buckets"])) == (1, 0, 1)
    assert pair.call(heir, "health")["calls"] == 0


def test_who_has_not_the_key_gets_nothing(pair: Pair) -> None:
    source, heir = pair.start("Ledger-1"), pair.start("Ledger-2")
    before = pair.content("Ledger-2")
    for key in ("", "another", KEY + "x"):
        with pytest.raises(CallRefused, match="without the key"):
            asyncio.run(move(pair.way(key), source, heir, 5.0))
        with pytest.raises(CallRefused, match="without the key"):
            asyncio.run(pre_copy(source, heir, key, pair.runtime, None, 5.0))
    assert pair.content("Ledger-2") == before


def test_an_agent_without_a_key_moves_its_state_for_nobody(pair: Pair) -> None:
    source = pair.start("Ledger-1")
    key_file(pair.runtime, "Ledger-1").unlink()
    for key in ("", KEY):
        with pytest.raises(CallFailed, match="without the key"):
            pair.call(source, "outrider.manifest", key=key)


def test_nothing_outside_of_the_state_is_read(pair: Pair) -> None:
    source = pair.start("Ledger-1")
    (pair.runtime / "secret").write_text("secret")
    (pair.states["Ledger-1"] / "out").symlink_to("/etc")
    (pair.states["Ledger-1"] / "link").symlink_to("../secret")
    for path in ("../secret", "/etc/passwd", "out/passwd", "link", f"{OURS}/journal", ".", ""):
        with pytest.raises(CallFailed):
            pair.call(source, "outrider.read", key=KEY, path=path, chunk=0)


def test_a_source_that_dies_in_the_middle_leaves_the_heir_as_it_was_and_the_next_copy_goes_on(pair: Pair) -> None:
    source, heir = pair.start("Ledger-1", size=8 * SIZE), pair.start("Ledger-2")
    before = pair.content("Ledger-2")

    staged = pair.states["Ledger-2"] / OURS / "new" / "data"
    with ThreadPoolExecutor() as pool:
        copying = pool.submit(pair.pre_copy, source, heir)
        wait_for(lambda: staged.exists() and staged.stat().st_size >= CHUNK)
        pair.kill("Ledger-1")
        assert isinstance(copying.exception(20), (ConnectionLost, CallFailed))
    assert pair.content("Ledger-2") == before
    source = pair.start("Ledger-1", size=8 * SIZE)
    assert pair.pre_copy(source, heir).bytes < 8 * SIZE
    pair.move(source, heir)
    assert pair.content("Ledger-2") == pair.content("Ledger-1")


def test_a_copy_that_is_under_way_makes_room_for_the_next(pair: Pair) -> None:
    """Whoever asked for it may be gone."""
    source, heir = pair.start("Ledger-1", size=8 * SIZE), pair.start("Ledger-2")
    staged = pair.states["Ledger-2"] / OURS / "new" / "data"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(pair.pre_copy, source, heir)
        wait_for(lambda: staged.exists() and staged.stat().st_size >= CHUNK)
        second = pair.move(source, heir, 20.0)
        assert isinstance(first.exception(20), CallRefused)
    assert second.bytes < 8 * SIZE
    assert pair.content("Ledger-2") == pair.content("Ledger-1")


def test_a_disk_that_is_full_leaves_the_heir_as_it_was_and_gives_its_room_back(pair: Pair) -> None:
    source, heir = pair.start("Ledger-1", size=SIZE), pair.start("Ledger-2", most=4 * CHUNK)
    before = pair.content("Ledger-2")
    with pytest.raises(CallFailed, match="too large"):
        pair.move(source, heir)
    assert pair.content("Ledger-2") == before
    assert not (pair.states["Ledger-2"] / OURS / "new").exists()


def test_a_state_that_is_written_to_while_it_moves_is_not_taken_over(pair: Pair) -> None:
    source, heir = pair.start("Ledger-1", size=SIZE), pair.start("Ledger-2")
    pair.pre_copy(source, heir)
    pair.call(source, "scribble")
    with pytest.raises(CallError, match=r"while it move|another state|not what"):
        pair.move(source, heir)


def test_what_is_written_after_the_copy_keeps_the_state_where_it_is(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, heir = pair.start("Ledger-1"), pair.start("Ledger-2")
    pull = state_copy._pull

    async def write_late(*args: Any, **options: Any) -> Copied:
        copied = await pull(*args, **options)
        (pair.states["Ledger-1"] / "late").touch()
        return copied

    monkeypatch.setattr(state_copy, "_pull", write_late)
    with pytest.raises(CallFailed, match="wrote to its state while it moved"):
        pair.move(source, heir)


def test_an_instance_that_was_killed_in_its_swap_begins_with_one_state_or_the_other(pair: Pair) -> None:
    source, heir = pair.start("Ledger-1", size=CHUNK), pair.start("Ledger-2", size=CHUNK)
    old, journal = pair.content("Ledger-2"), pair.states["Ledger-2"] / OURS / "journal"
    for number in range(6):
        pair.call(source, "add", number=number)

        with ThreadPoolExecutor() as pool:
            moving = pool.submit(pair.move, source, heir)
            wait_for(lambda done=moving.done: journal.exists() or done())
            if number:
                time.sleep(0.0005 * number)  # each time elsewhere in it
            pair.kill("Ledger-2")
            moving.exception(20)
        heir = pair.start("Ledger-2", size=CHUNK)
        found = pair.content("Ledger-2")
        assert found in (old, pair.content("Ledger-1"))
        old = found
