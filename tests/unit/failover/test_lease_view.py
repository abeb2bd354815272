"""What Consul says, and what was written here, in whichever order they become known."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
