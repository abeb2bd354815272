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
from outrider.host.state import Kept, KeptStore
from outrider.host.supervisor import Process
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
    """A supervisor of a host on which nothing runs but `left`, of which nothing else is known."""

    def __init__(self, *left: Process) -> None:
        self.left = left
        self.stopped: list[Process] = []

    def adopt(self) -> list[Process]:
        return list(self.left)

    async def stop(self, process: Process, timeout_s: float) -> None:
        del timeout_s
        self.stopped.append(process)

    def forget(self, instance: str) -> None:
        del instance


def a_host(folder: Path, removed: list[str], supervisor: NoProcesses) -> AgentHost:
    config = Config("f", "pc1", folder, folder, folder)
    return AgentHost(config, supervisor, probes=nothing, changed=nothing, removed=removed.append,
                     serves=lambda _: True, lacks=lambda _: "", holds_lease=lambda _: False)  # fmt: skip


async def test_what_is_placed_again_in_the_moment_it_goes_is_looked_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    supervisor = NoProcesses()
    host = a_host(tmp_path, removed, supervisor)
    placed = {"Echo": PlacementDoc("Echo", (replace(HERE, state="stopped"),))}
    host.apply({"Echo": ECHO}, placed, whole=True)
    first = host.runners["Echo-1"]
    monkeypatch.setattr(supervisor, "forget", lambda _: host.apply({"Echo": ECHO}, placed, whole=True))
    host.apply({"Echo": ECHO}, {}, whole=True)
    await asyncio.wait([first.task])
    await asyncio.sleep(0)
    assert host.runners["Echo-1"] is not first
    assert removed == []
    await host.abandon()


@pytest.mark.parametrize(
    ("placements", "whole", "ends"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"Echo": PlacementDoc("Echo", (THERE,))}, False, True),
        ({"Echo": PlacementDoc("Echo", (HERE,))}, True, False),
    ],
)
async def test_what_is_known_from_disk_ends_by_a_document_or_by_a_publication(
    tmp_path: Path, placements: dict[str, PlacementDoc], whole: bool, ends: bool
) -> None:
    KeptStore(tmp_path).save(Kept(ECHO, replace(HERE, state="stopped"), {}))
    host = a_host(tmp_path, [], NoProcesses())
    host.start_from_disk()
    host.apply({}, placements, whole=whole)
    assert (host.runners["Echo-1"].wanted is None) == ends
    await host.abandon()


async def test_a_process_that_nobody_knows_runs_until_all_documents_are_there(tmp_path: Path) -> None:
    unknown = Process("Old-1", 4711, 1)
    supervisor = NoProcesses(unknown)
    host = a_host(tmp_path, [], supervisor)
    for whole in (False, True):
        host.apply({}, {}, whole=whole)
        await asyncio.sleep(0)
        assert supervisor.stopped == ([unknown] if whole else [])
