"""What Consul says, and what was written here, in whichever order they become known."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from outrider.failover.lease_view import LeaseView
from outrider.failover.memory import LeaseMemory
from outrider.registry.address import Address
from outrider.registry.client import connect
from outrider.registry.leases import Lease, LeaseDoc, Member

OURS = LeaseDoc("A", 5, "A-1", "h1", state="released")
THEIRS = LeaseDoc("A", 6, "A-2", "h2", state="held")


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
async def view(executor: ThreadPoolExecutor, tmp_path: Path) -> LeaseView:
    """Not started: nothing is asked of any Consul."""
    return LeaseView(connect(Address(port=1)), executor, tmp_path, lambda: None)


async def test_what_the_watch_told_stands_over_the_late_answer_to_an_earlier_write(view: LeaseView) -> None:
    view.followed({"A": Lease(THEIRS, 9, "theirs")}, 9)
    view.wrote(Lease(OURS, 8))
    assert view.leases["A"].doc == THEIRS
    assert not view.is_free("A")


async def test_what_was_written_stands_over_an_answer_that_was_on_its_way(view: LeaseView) -> None:
    view.wrote(Lease(THEIRS, 9, "ours"))
    view.followed({"A": Lease(OURS, 8)}, 8)
    assert view.leases["A"].doc == THEIRS
    view.followed({}, 8)
    assert view.leases["A"].doc == THEIRS


async def test_a_consul_that_was_put_back_is_believed(view: LeaseView) -> None:
    view.followed({"A": Lease(THEIRS, 90, "theirs")}, 90)
    view.followed({"A": Lease(OURS, 3)}, 3)
    assert view.leases["A"].doc == OURS
    assert view.is_free("A")


async def test_nothing_is_free_before_consul_has_answered(view: LeaseView) -> None:
    assert not view.is_free("A")
    view.followed({}, 1)
    assert view.is_free("A")


async def test_what_was_seen_is_remembered_over_restarts(
    view: LeaseView, executor: ThreadPoolExecutor, tmp_path: Path
) -> None:
    view.followed({"A": Lease(THEIRS, 9, "theirs")}, 9)
    view.followed({"A": Lease(OURS, 3)}, 3)
    executor.shutdown(wait=True)
    assert LeaseMemory(tmp_path).last("A") == THEIRS


def test_members_that_change_within_an_epoch_are_remembered_too(tmp_path: Path) -> None:
    memory = LeaseMemory(tmp_path)
    memory.saw([THEIRS])
    more = LeaseDoc("A", 6, "A-2", "h2", members=(Member("A-2", "h2"),), state="held")
    memory.saw([more])
    memory.saw([LeaseDoc("A", 5, "A-1", "h1")])
    assert LeaseMemory(tmp_path).last("A") == more


async def test_a_question_that_hangs_on_a_lost_leader_is_asked_again(
    executor: ThreadPoolExecutor, tmp_path: Path
) -> None:
    leader_is_lost, end = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if "index=" in self.path:
                leader_is_lost.set()
                end.wait(60)
            doc = base64.b64encode(msgspec.json.encode(THEIRS)).decode()
            row = {"Key": "outrider/leases/A", "Value": doc, "ModifyIndex": 9, "LockIndex": 1, "Flags": 0}
            body = json.dumps([row if leader_is_lost.is_set() else {**row, "Session": "theirs"}]).encode()
            self.send_response(200)
            for name, value in (("X-Consul-Index", "9"), ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told = asyncio.Event()
        view = LeaseView(connect(Address(port=server.server_port)), executor, tmp_path, told.set)
        view.start()
        try:
            # With questions of ten seconds it took more than eleven.
            async with asyncio.timeout(9):
                while not view.is_free("A"):
                    told.clear()
                    await told.wait()
        finally:
            end.set()
            await view.stop()
            server.shutdown()
