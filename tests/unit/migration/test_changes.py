"""What a publication would change is found without Consul, and only what must restart does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from outrider.errors import FleetError, ReleaseError
from outrider.fleet.spec import Agent, Host
from outrider.migration.changes import Documents, arrived, changes, goals
from outrider.migration.compile import Definition

HOSTS = (Host("one", groups=("gpus",)), Host("two"))


def an_agent(**keys: Any) -> Agent:
    return msgspec.convert({"command": ["run"], **keys}, Agent)


def definition(**agents: Agent) -> Definition:
    return Definition("test", agents, HOSTS)


def published(wanted: Definition, releases: dict[str, str] | None = None) -> dict[str, Documents]:
    """What Consul holds once `wanted` is rolled out."""
    found = goals(wanted, releases or {}, {}, HOSTS, prune=True)
    return {name: arrived(goal, Documents()) for name, goal in found.items()}


def compare(
    current: dict[str, Documents], wanted: Definition, releases: dict[str, str] | None = None
) -> dict[str, Any]:
    found = changes(current, goals(wanted, releases or {}, current, HOSTS, prune=True))
    return {change.name: (change.kind, change.what, change.restarts) for change in found}


def test_everything_is_new_at_first() -> None:
    assert compare({}, definition(a=an_agent())) == {"a": ("added", (), ())}


def test_the_same_again_is_unchanged() -> None:
    wanted = definition(a=an_agent(count=3))
    assert compare(published(wanted), wanted) == {"a": ("unchanged", (), ())}


@pytest.mark.parametrize(
    ("keys", "what", "restarts"),
    [
        ({"environment": {"X": "1"}}, ("configuration",), ("a-1", "a-2")),
        ({"tags": ["gpu"]}, ("description",), ()),
        ({"description": "new"}, ("description",), ()),
        ({"needs": ["b"]}, ("configuration",), ("a-1", "a-2")),
    ],
)
def test_what_changed_is_named(keys: dict[str, Any], what: tuple[str, ...], restarts: tuple[str, ...]) -> None:
    current = published(definition(a=an_agent(count=2), b=an_agent()))
    assert compare(current, definition(a=an_agent(count=2, **keys), b=an_agent()))["a"] == ("changed", what, restarts)


def test_new_code_is_a_release() -> None:
    wanted = definition(a=an_agent(code={"path": "src"}))
    found = compare(published(wanted, {"path:src": "11" * 32}), wanted, {"path:src": "22" * 32})
    assert found == {"a": ("changed", ("release",), ("a-1",))}


def test_another_host_is_a_placement() -> None:
    current = published(definition(a=an_agent(hosts=["one"])))
    kind, what, restarts = compare(current, definition(a=an_agent(hosts=["two"])))["a"]
    assert (kind, restarts) == ("changed", ("a-1",))
    assert "placement" in what


def test_more_instances_restart_none() -> None:
    current = published(definition(a=an_agent(count=1)))
    kind, what, restarts = compare(current, definition(a=an_agent(count=2)))["a"]
    assert (kind, "placement" in what, restarts) == ("changed", True, ())


def test_a_rollout_that_was_broken_off_is_unfinished() -> None:
    wanted = definition(a=an_agent(count=2))
    docs = published(wanted)["a"]
    old = replace(docs.instances[1], version="older")
    found = compare({"a": docs.placed([docs.instances[0], old])}, wanted)
    assert found == {"a": ("changed", ("unfinished",), ("a-2",))}


def test_agents_that_are_gone_are_removed_only_if_wanted() -> None:
    current = published(definition(a=an_agent(), b=an_agent()))
    assert compare(current, definition(a=an_agent()))["b"][0] == "removed"
    assert "b" not in goals(definition(a=an_agent()), {}, current, HOSTS, prune=False)


def test_what_an_operator_stopped_or_restarted_stays_so() -> None:
    wanted = definition(a=an_agent())
    docs = published(wanted)["a"]
    touched = docs.placed([replace(docs.instances[0], state="stopped", generation=4)])
    assert compare({"a": touched}, wanted) == {"a": ("unchanged", (), ())}


def test_another_fleet_is_not_removed_by_mistake() -> None:
    current = published(definition(a=an_agent()))
    other = Definition("other", {"b": an_agent()}, HOSTS)
    with pytest.raises(FleetError, match="1 agents of the fleet test, which other would remove: a"):
        goals(other, {}, current, HOSTS, prune=True)


def test_code_without_a_release_is_named() -> None:
    with pytest.raises(ReleaseError, match="git:repo@v1"):
        goals(definition(a=an_agent(code={"git": "repo", "ref": "v1"})), {}, {}, HOSTS, prune=True)
