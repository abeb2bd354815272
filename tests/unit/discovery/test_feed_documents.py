"""An absent document ends nobody, unless a publication that went through says that it was removed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from outrider.discovery.feed import Feed
from outrider.fleet.spec import Agent
from outrider.fleet.spec import Host as HostSpec
from outrider.registry.address import Address
from outrider.registry.client import Reply, connect
from outrider.registry.layout import FLEET, HOSTS, PLACEMENT, PUBLISHED, AgentDoc, HostDoc, Placed, PlacementDoc

YOUNG, LATER, OLD = 3, 40, 900


def answer(prefix: str, index: int, contents: dict[str, bytes]) -> Reply:
    """What Consul answers for a prefix that holds these keys."""
    pairs = [
        {"Key": key, "Value": base64.b64encode(content).decode(), "ModifyIndex": index}
        for key, content in contents.items()
        if key.startswith(prefix)
    ]
    body = json.dumps(pairs).encode() if pairs else b""
    return Reply(index=index, body=body, known_leader=True, last_contact_ms=0, status=200 if pairs else 404)


def documents(*names: str, number: int = 0) -> dict[str, bytes]:
    """Both documents of these agents, and the number of the publication; 0 while none went through."""
    found: dict[str, bytes] = {PUBLISHED: json.dumps({"number": number}).encode()} if number else {}
    for name in names:
        found[FLEET + name] = msgspec.json.encode(AgentDoc(name, "lab", Agent(module="x"), "v1"))
        found[PLACEMENT + name] = msgspec.json.encode(PlacementDoc(name, (Placed(f"{name}-1", "gpu1", "v1"),)))
    return found


class Host:
    """A feed that no Consul feeds, and whom it passed on last."""

    def __init__(self, executor: ThreadPoolExecutor, folder: Path) -> None:
        self.seen: set[str] | None = None
        self.whole = False
        self.feed = Feed(
            connect(Address(port=1)), executor, folder,
            on_documents=self._documents, on_members=int, on_contact=lambda _: None,
        )  # fmt: skip

    def _documents(self) -> None:
        view = self.feed.view
        self.seen, self.whole = set(view.placements), view.whole

    def fleet(self, index: int, contents: dict[str, bytes]) -> None:
        self.feed._fleet_changed(answer(FLEET, index, contents))

    def placement(self, index: int, contents: dict[str, bytes]) -> None:
        self.feed._placement_changed(answer(PLACEMENT, index, contents))

    def hosts(self, index: int, contents: dict[str, bytes]) -> None:
        self.feed._hosts_changed(answer(HOSTS, index, contents))

    def read(self, index: int, contents: dict[str, bytes]) -> None:
        self.fleet(index, contents)
        self.placement(index, contents)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
async def host(executor: ThreadPoolExecutor, tmp_path: Path) -> Host:
    """It knows A, B and C, as the seventh publication left them, at an index of 40."""
    made = Host(executor, tmp_path)
    made.read(LATER, documents("A", "B", "C", number=7))
    assert made.seen == {"A", "B", "C"}
    return made


@pytest.mark.parametrize("index", [YOUNG, LATER, OLD])
async def test_a_wiped_consul_ends_nobody_whatever_its_index(host: Host, index: int) -> None:
    host.read(index, {})
    assert host.feed.documents_lost
    assert host.seen == {"A", "B", "C"} == host.feed.view.agents.keys()
    assert not host.whole


@pytest.mark.parametrize("index", [YOUNG, LATER, OLD])
async def test_documents_that_come_back_in_pieces_are_obeyed_and_the_others_wait(host: Host, index: int) -> None:
    moved = documents("A") | {PLACEMENT + "A": msgspec.json.encode(PlacementDoc("A", (Placed("A-1", "gpu2", "v1"),)))}
    host.read(index, moved)
    assert host.seen == {"A", "B", "C"}
    assert host.feed.view.placements["A"].instances[0].host == "gpu2"
    assert host.feed.documents_lost
    host.read(index + 1, documents("A", "B"))
    assert host.seen == {"A", "B", "C"}
    host.read(index + 2, documents("A", "B", number=8))
    assert host.seen == {"A", "B"}
    assert not host.feed.documents_lost


@pytest.mark.parametrize("index", [YOUNG, LATER, OLD])
async def test_an_older_snapshot_takes_nobody_away_that_it_does_not_know(host: Host, index: int) -> None:
    host.read(index, documents("A", number=6))
    assert host.seen == {"A", "B", "C"}
    host.read(index + 1, documents("A", number=8))
    assert host.seen == {"A"}


@pytest.mark.parametrize("index", [YOUNG, LATER, OLD])
async def test_what_a_publication_removed_goes_at_once(host: Host, index: int) -> None:
    host.read(index, documents("A", number=7))
    assert host.seen == {"A"}
    host.read(index + 1, documents(number=7))
    assert host.seen == set()
    assert not host.feed.documents_lost


async def test_only_the_placement_tells_that_an_agent_is_gone(host: Host) -> None:
    host.fleet(OLD, {})
    assert host.seen == {"A", "B", "C"} == host.feed.view.agents.keys()
    host.placement(OLD, {})
    assert host.seen == {"A", "B", "C"} == host.feed.view.agents.keys()


async def test_a_host_is_forgotten_only_by_a_publication(host: Host) -> None:
    both = {HOSTS + name: msgspec.json.encode(HostDoc(HostSpec(name))) for name in ("gpu1", "gpu2")}
    one = {HOSTS + "gpu1": both[HOSTS + "gpu1"]}
    view = host.feed.view
    host.hosts(LATER, both)
    host.hosts(YOUNG, {})  # read before the placements tell of the loss
    assert view.hosts.keys() == {"gpu1", "gpu2"}
    host.read(YOUNG, {})
    host.hosts(LATER, one)
    assert view.hosts.keys() == {"gpu1", "gpu2"}
    host.read(LATER, documents("A", number=8))
    assert view.hosts.keys() == {"gpu1"}
    host.hosts(OLD, {})
    host.read(OLD, documents(number=9))
    assert view.hosts == {}


async def test_a_placement_that_cannot_be_read_was_not_removed(host: Host) -> None:
    host.read(OLD, documents("A", "B", "C", number=7) | {PLACEMENT + "B": b"{"})
    assert host.seen == {"A", "B", "C"}
    host.read(OLD + 1, documents("A", "B", "C", number=7) | {PUBLISHED: b"{"})
    assert not host.whole


async def test_a_new_shim_knows_which_publication_was_the_last(
    host: Host, executor: ThreadPoolExecutor, tmp_path: Path
) -> None:
    new = Host(executor, tmp_path)
    new.read(OLD, documents("A", number=6))
    assert (new.seen, new.whole) == ({"A"}, False)
    new.read(OLD + 1, documents("A", number=7))
    assert (new.seen, new.whole) == ({"A"}, True)


async def test_a_new_shim_takes_an_empty_consul_for_nothing_read(executor: ThreadPoolExecutor, tmp_path: Path) -> None:
    new = Host(executor, tmp_path)
    new.read(OLD, {})
    assert new.seen is None
    assert new.feed.documents_lost
    assert not new.feed.view.documents_read
    new.read(OLD + 1, documents(number=1))
    assert (new.seen, new.whole) == (set(), True)
