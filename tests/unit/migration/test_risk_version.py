"""A version that is to come is assessed by its own documents and code, beside those of the one that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from outrider.fleet.spec import Resources
from outrider.migration.risk.assess import Risk
from outrider.migration.risk.observed import Published
from outrider.migration.risk.survey import Asked, Code, risks
from outrider.registry.layout import AgentDoc
from unit.migration.risk_world import calm, factor


def nowhere(doc: AgentDoc) -> str:
    return f"release {doc.release} is not on this host"


def changed(world: Published, name: str, release: str = "", **agent: Any) -> AgentDoc:
    """The document of version v2."""
    old = world.agents[name]
    return replace(old, version="v2", release=release, agent=replace(old.agent, **agent), previous=old)


def ask(world: Published, name: str, doc: AgentDoc | None, code: Code = nowhere, **more: Any) -> Risk:
    placed = world.placements[name].instances[0]
    asked = Asked(name, placed.host, instance=placed.instance, doc=doc, **more)
    [found] = risks(world, calm(), asked, code)
    return found


def test_a_version_that_wants_more_leaves_less_on_its_own_host_beside_the_old_one(world: Published) -> None:
    stays = ask(world, "Web", None)
    grown = ask(world, "Web", changed(world, "Web", resources=Resources(cpu=4, memory_mib=1024)))
    assert (factor(stays, "L7").points, factor(stays, "L1").points) == (0, 0)
    assert factor(grown, "L7").points > 0
    assert (grown.source, grown.target, grown.choice) == (stays.source, stays.source, "its version changes there")
    huge = ask(world, "Web", changed(world, "Web", resources=Resources(cpu=99, memory_mib=1024)))
    assert "cores left, wanted 99" in huge.stop


def test_one_that_ends_first_makes_room_for_its_next_version(world: Published) -> None:
    cold = changed(world, "Store", ports={"main": "auto"}, resources=Resources(cpu=15, memory_mib=1024))
    warm = replace(cold, agent=replace(cold.agent, ports={"call": "auto"}))
    alone = replace(world, placements={"Store": world.placements["Store"]})
    assert "cores left" in ask(alone, "Store", warm).stop
    assert ask(alone, "Store", cold).stop == ""


def test_what_the_documents_say_otherwise_is_a_change_and_files_may_have_no_way_back(world: Published) -> None:
    found = ask(world, "Store", changed(world, "Store", environment={"NEW": "1"}))
    assert (factor(found, "L1").points, factor(found, "L2").points) == (1, 0)
    assert factor(found, "A6").said == "not known"
    assert found.band.name == "critical"
    told = ask(world, "Store", changed(world, "Store", environment={"NEW": "1"}), readable=True)
    assert (factor(told, "A6").points, told.band.name) == (0, "high")


def test_the_files_of_a_version_that_kept_state_are_there_though_the_new_one_keeps_none(world: Published) -> None:
    assert factor(ask(world, "Store", changed(world, "Store", state=False)), "I1").points == 3
    assert factor(ask(world, "Web", changed(world, "Web", count=1, state=True)), "I1").points == 3


def test_the_code_of_both_versions_is_compared_where_it_lies_here_and_else_counts_as_the_worst(
    world: Published, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, text in ((old, "import sqlite3\n"), (new, "print()\n" * 60)):
        folder.mkdir()
        (folder / "main.py").write_text(text)
    doc = changed(world, "Web", "r2", environment={"NEW": "1"})
    found = ask(world, "Web", doc, lambda doc: new if doc.release == "r2" else old)
    assert factor(found, "L1").evidence.startswith("64 lines added or removed in 2 files")
    assert (factor(found, "L5").measured, factor(found, "I1").points) == (True, 3)  # its database is still there
    away = ask(world, "Web", doc)
    assert {"L1", "L2", "L5"} <= {each.key for each in away.not_known}
    assert factor(away, "L1").evidence == "release  is not on this host"


def test_what_is_published_already_but_does_not_run_yet_is_a_change_too(world: Published) -> None:
    waiting = replace(world, agents={**world.agents, "Web": changed(world, "Web", environment={"NEW": "1"})})
    assert factor(ask(waiting, "Web", None), "L1").points == 1
    lost = replace(waiting.agents["Web"], previous=None)
    found = ask(replace(world, agents={**world.agents, "Web": lost}), "Web", None)
    assert (factor(found, "L1").points, factor(found, "L1").evidence) == (
        4, "nothing is known of version v1, which runs")  # fmt: skip
