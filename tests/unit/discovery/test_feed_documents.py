"""A Consul that lost the documents stops nobody, also while they come back piece by piece."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from outrider.discovery import feed as module
from outrider.discovery.feed import Feed
from outrider.fleet.spec import Agent
from outrider.registry.address import Address
from outrider.registry.client import Reply, connect
from outrider.registry.layout import FLEET, PLACEMENT, AgentDoc, Placed, PlacementDoc


def reply(prefix: str, index: int, *names: str) -> Reply:
    """What Consul answers for a prefix that holds the documents of these agents."""
    pairs = []
    for name in names:
        doc: object = AgentDoc(name, "lab", Agent(module="x"), "v1")
        if prefix == PLACEMENT:
            doc = PlacementDoc(name, (Placed(f"{name}-1", "gpu1", "v1"),))
        value = base64.b64encode(msgspec.json.encode(doc)).decode()
        pairs.append({"Key": prefix + name, "Value": value, "ModifyIndex": index})
    body = json.dumps(pairs).encode() if names else b""
    return Reply(index=index, body=body, known_leader=True, last_contact_ms=0, status=200 if names else 404)


class Host:
    """A feed that no Consul feeds, and what it passed on."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.seen: list[set[str]] = []
        self.news = asyncio.Event()
        self.feed = Feed(
            connect(Address(port=1)), executor, on_documents=self._documents, on_members=int, on_contact=lambda _: None
        )

    def _documents(self) -> None:
        self.seen.append(set(self.feed.view.placements))
        self.news.set()

    def answer(self, index: int, *names: str) -> None:
        self.feed._fleet_changed(reply(FLEET, index, *names))
        self.feed._placement_changed(reply(PLACEMENT, index, *names))


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


async def test_documents_that_come_back_in_pieces_are_passed_on_whole(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPUBLISH_S", 0.05)
    host = Host(executor)
    host.answer(50, "A", "B", "C")
    assert host.seen[-1] == {"A", "B", "C"}
    host.answer(3)
    assert host.feed.documents_lost
    passed_on = len(host.seen)
    host.news.clear()
    host.answer(5, "A")
    host.answer(6, "A", "B", "C")
    assert len(host.seen) == passed_on
    assert not host.feed.documents_lost
    async with asyncio.timeout(5):
        await host.news.wait()
    assert host.seen[passed_on:] == [{"A", "B", "C"}]
    host.answer(7, "A")
    assert host.seen[-1] == {"A"}


async def test_documents_that_were_deleted_are_obeyed_at_once(executor: ThreadPoolExecutor) -> None:
    host = Host(executor)
    host.answer(50, "A", "B")
    host.answer(60)
    assert not host.feed.documents_lost
    assert host.seen[-1] == set()
