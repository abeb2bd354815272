"""What the documents want on one host."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from outrider.fleet.spec import Agent
from outrider.host.agent_host import AgentHost, desired_on
from outrider.host.config import Config
from outrider.registry.layout import AgentDoc, Placed, PlacementDoc

ECHO = AgentDoc("Echo", "reference", Agent(), "v1")
HERE, THERE = Placed("Echo-1", "pc1", "v1"), Placed("Echo-2", "pc2", "v1")


def test_only_what_is_placed_here_is_wanted_here() -> None:
    placements = {"Echo": PlacementDoc("Echo", (HERE, THERE))}
    assert desired_on("pc1", {"Echo": ECHO}, placements) == {"Echo-1": (ECHO, HERE)}
    assert desired_on("witness", {"Echo": ECHO}, placements) == {}


def test_a_placement_without_its_agent_wants_nothing() -> None:
    assert desired_on("pc1", {}, {"Echo": PlacementDoc("Echo", (HERE,))}) == {}


def nothing(*_: Any) -> Any:
    return None


class NoProcesses:
    """A supervisor of a host on which nothing runs."""

    def adopt(self) -> list[Any]:
        return []

    def forget(self, instance: str) -> None:
        del instance


async def test_what_is_placed_again_in_the_moment_it_goes_is_looked_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    config = Config("f", "pc1", tmp_path, tmp_path, tmp_path)
    supervisor: Any = NoProcesses()
    host = AgentHost(config, supervisor, probes=nothing, changed=nothing, removed=removed.append,
                     serves=lambda _: True, lacks=lambda _: "", holds_lease=lambda _: False)  # fmt: skip
    placed = {"Echo": PlacementDoc("Echo", (replace(HERE, state="stopped"),))}
    host.apply({"Echo": ECHO}, placed)
    first = host.runners["Echo-1"]
    monkeypatch.setattr(supervisor, "forget", lambda _: host.apply({"Echo": ECHO}, placed))
    host.apply({"Echo": ECHO}, {})
    await asyncio.wait([first.task])
    await asyncio.sleep(0)
    assert host.runners["Echo-1"] is not first
    assert removed == []
    await host.abandon()
