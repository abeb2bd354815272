"""Who is asked about a lease that this host holds, and whose word counts when they differ."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from outrider.failover.confirm import Confirming
from outrider.failover.keeper import Held
from outrider.registry.address import Address
from outrider.registry.client import Consul, connect
from outrider.registry.leases import LeaseDoc, Member

pytest_plugins = ("unit.registry.conftest",)
AWAY = connect(Address(port=1))
DOC = LeaseDoc("A", 5, "A-1", "h1", members=(Member("A-1", "h1"), Member("A-2", "h2")), state="held")


class Keeper:
    """What became of the lease."""

    def __init__(self) -> None:
        self.session = SimpleNamespace(id="s")
        self.held = {"A": Held("A-1", DOC, "s", time.monotonic(), time.monotonic() + 1.0)}
        self.became: list[str] = []

    def confirmed(self, agent: str, sent: float) -> None:
        self.became.append("confirmed")

    def allowed(self, agent: str, sent: float) -> None:
        self.became.append("allowed")

    def unlocked(self, agent: str, why: str) -> None:
        self.became.append(f"unlocked: {why}")


@pytest.fixture
def says(fake_consul: Any, answers: Any) -> Callable[[bool], Consul]:
    """A Consul that finds the lock held, or not."""

    def make(held: bool) -> Consul:
        lost = json.dumps({"Errors": [{"OpIndex": 0, "What": "no session"}]}).encode()
        answer = answers(body=b'{"Results": []}') if held else answers(status=409, body=lost)
        return connect(fake_consul(answer).address)

    return make


def became(home: Consul, servers: Consul | None, *, members_let: bool) -> list[str]:
    """One round."""

    async def ask(leases: dict[str, tuple[str, int]], hosts: frozenset[str]) -> dict[str, frozenset[str]]:
        return {host: frozenset(leases) if members_let else frozenset() for host in hosts}

    async def once() -> list[str]:
        keeper: Any = Keeper()
        await Confirming(keeper, home, servers, "h1", ask)._confirm(leases_of_all=False)
        return list(keeper.became)

    return asyncio.run(once())


def test_the_hosts_own_consul_agent_is_believed_whatever_members_let(says: Callable[[bool], Consul]) -> None:
    assert became(says(True), says(False), members_let=True) == ["confirmed"]
    assert became(says(False), says(True), members_let=True) == ["unlocked: no session"]


def test_a_server_confirms_where_the_own_agent_is_away(says: Callable[[bool], Consul]) -> None:
    assert became(AWAY, says(True), members_let=False) == ["confirmed"]


def test_a_lock_that_servers_freed_while_the_own_agent_is_away_ends_nothing_that_all_members_let_go_on(
    says: Callable[[bool], Consul],
) -> None:
    """Else each restart of a Consul agent would move the leases of its host."""
    assert became(AWAY, says(False), members_let=True) == ["allowed"]
    assert became(AWAY, says(False), members_let=False) == ["unlocked: no session"]


def test_where_nobody_answers_the_members_decide() -> None:
    assert became(AWAY, None, members_let=True) == ["allowed"]
    assert became(AWAY, AWAY, members_let=False) == []
