"""The modules of migrations, against a real Consul, carried out by a real shim."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from ansible.module_utils.testing import patch_module_args
from msgspec.structs import replace

from outrider.fleet.spec import Agent, Host, Restart
from outrider.migration.compile import Definition
from outrider.migration.staged import edits
from outrider.migration.staged.journal import entry_change, read_all, spec_change
from outrider.migration.staged.records import End, Journal, Spec, Strategy, next_entry
from outrider.registry import kv
from outrider.registry.layout import FLEET, HOSTS, PLACEMENT, AgentDoc, HostDoc, PlacementDoc
from outrider.registry.leases import LEASES, LeaseDoc

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)
LIBRARY = Path(__file__).parents[3] / "library"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def moving(serving: ShimHost) -> ShimHost:
    """Its agents pass, and Consul knows what its host has."""
    kv.put_docs(serving.consul.client, [kv.Change(HOSTS + "local", HostDoc(Host("local")), 0)])
    return serving


@pytest.fixture
def run(moving: ShimHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a module as Ansible would, and return what it prints. Risk asks for what these agents have not got."""
    monkeypatch.setenv("OUTRIDER_RUNTIME", str(moving.folder / "runtime"))
    given = {"override": "a test", "approvals": 0, "verify_s": 5.0, "undecided": "accept"}

    def call(name: str = "agent_migration", **arguments: Any) -> dict[str, Any]:
        if name == "agent_migration":  # its risk, of which nearly nothing is known here, would ask for far more
            arguments = {"override": "a test", "verify_s": 30, "undecided": "hold", "approvals": 0} | arguments
        spec = importlib.util.spec_from_file_location(name, LIBRARY / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        options = given if name == "agent_migration" else {}
        with (
            patch_module_args({"consul_port": moving.consul.ports["http"], **options, **arguments}),
            pytest.raises(SystemExit),
        ):
            module.main()
        return dict(json.loads(capsys.readouterr().out))

    return call


def definition(**changed: Agent) -> dict[str, Any]:
    return dict(msgspec.to_builtins(Definition("test", changed, (Host("local"),))))


def new(host: ShimHost, **changed: Any) -> Agent:
    """What its agents are, otherwise."""
    return replace(host.small, **(changed or {"environment": {"NEW": "1"}}))


def placed(host: ShimHost, name: str) -> PlacementDoc:
    found, _ = kv.get_doc(host.consul.client, PLACEMENT + name, PlacementDoc)
    assert found
    return found


def test_check_mode_shows_all_and_writes_nothing(moving: ShimHost, run: Run) -> None:
    wanted = definition(Alpha=new(moving), Beta=new(moving, needs=("Alpha",)))
    result = run(definition=wanted, approvals=1, _ansible_check_mode=True, _ansible_diff=True)
    assert result["changed"]
    assert result["waves"] == [["Alpha"], ["Beta"]]
    assert [(step["name"], step["approvals"]) for step in result["plans"][0]["steps"]] == [
        ("start", 0), ("canary", 0), ("shift", 1), ("verify", 0),
    ]  # fmt: skip
    assert "Alpha-1 on local, version v1" in result["diff"][0]["before"]
    assert "Alpha-2 on local" in result["diff"][0]["after"]
    assert read_all(moving.consul.client).journals == {}


def test_a_version_is_staged_cut_over_and_then_is_there(moving: ShimHost, run: Run) -> None:
    wanted = definition(Alpha=new(moving))
    staged = run(definition=wanted, state="staged", why="try it")
    assert staged["changed"]
    assert [found["state"] for found in staged["migrations"]] == ["running"]
    moving.wait(lambda: len(placed(moving, "Alpha").instances) == 2)
    again = run(definition=wanted, state="staged")
    assert not again["changed"]
    assert [found["id"] for found in again["migrations"]] == [found["id"] for found in staged["migrations"]]
    assert run(definition=wanted, state="cutover")["changed"]
    done = run(definition=wanted)
    (instance,) = placed(moving, "Alpha").instances
    assert instance.instance == "Alpha-2"
    assert all(found["state"] == "finalised" for found in done["migrations"])
    assert not run(definition=wanted)["changed"]
    info = run("agent_migration_info", agent="Alpha")["migrations"]
    assert [found["id"] for found in info] == [staged["migrations"][0]["id"]]
    assert info[0]["verdict"]["verdict"] == "go"
    assert info[0]["timings"].keys() == {"start", "canary", "shift", "verify"}
    assert run("agent_migration_info", active=True)["migrations"] == []


def test_what_was_rehearsed_within_a_day_is_not_rehearsed_again(moving: ShimHost, run: Run) -> None:
    wanted = {"agents": ["Alpha"], "definition": definition(Alpha=new(moving)), "state": "rehearsed"}
    shown = run(**wanted, _ansible_check_mode=True)
    assert (shown["changed"], [step["name"] for step in shown["plans"][0]["steps"]]) == (True, ["start"])
    done = run(**wanted)
    assert (done["changed"], [found["state"] for found in done["migrations"]]) == (True, ["rehearsed"])
    assert [found.instance for found in placed(moving, "Alpha").instances] == ["Alpha-1"]
    assert not run(**wanted)["changed"]


def test_what_is_staged_goes_back_when_it_is_not_wanted(moving: ShimHost, run: Run) -> None:
    run(definition=definition(Alpha=new(moving)), state="staged")
    back = run(agents=["Alpha"], state="rolled_back", why="no")
    assert back["changed"]
    assert [(found["state"], found["reason"]) for found in back["migrations"]] == [("rolled_back", "no")]
    assert [found.instance for found in placed(moving, "Alpha").instances] == ["Alpha-1"]
    again = run(agents=["Alpha"], state="rolled_back")
    assert "failed" not in again
    assert not again["changed"]
    assert not run(agents=["Alpha"], state="absent")["changed"]


def test_one_that_does_not_start_fails_with_the_reason_and_is_as_it_was(moving: ShimHost, run: Run) -> None:
    broken = new(moving, command=("false",), restart=Restart(park_after=2))
    result = run(definition=definition(Alpha=broken))
    assert result["failed"]
    assert "is rolled back: start: " in result["msg"]
    assert "outrider migrate show" in result["msg"]
    assert any("prepare: start" in line for line in result["progress"])
    assert [found.instance for found in placed(moving, "Alpha").instances] == ["Alpha-1"]
    assert moving.passing("Alpha")


def held(host: ShimHost, strategy: Strategy, *, cut_over: bool) -> str:
    """A migration of Alpha that its driver left to a person."""
    consul = host.consul.client
    spec = Spec("m1", "Alpha", strategy, End("Alpha-1", "local", "v1"), End("Alpha-2", "h2", "v1"), by="test", at=1.0)
    journal = Journal(spec)
    steps = [("begun", "start"), *([("begun", "copy"), ("begun", "hand over")] if cut_over else [])]
    for what, step in [("planned", ""), *steps, ("rollback", ""), ("held", "")]:
        entry = next_entry(journal, what, 2.0, "local", step=step, said="h2 is away")  # type: ignore[arg-type]
        journal = journal.followed_by(entry)
    before, index = kv.get_doc(consul, PLACEMENT + "Alpha", PlacementDoc)
    assert before
    doc = edits.held(edits.claimed(before, spec, "k" if strategy == "state" else ""), "h2 is away")
    changes = [kv.Change(PLACEMENT + "Alpha", doc, index), kv.Change(HOSTS + "h2", HostDoc(Host("h2")), 0)]
    kv.put_docs(consul, [*changes, spec_change(spec), *(entry_change("m1", entry) for entry in journal.entries)])
    return spec.id


def test_what_is_held_is_kept_or_goes_back_as_a_person_says(moving: ShimHost, run: Run) -> None:
    migration = held(moving, "replicated", cut_over=False)
    shown = run(migration=migration, resolve="back", _ansible_check_mode=True)
    assert (shown["changed"], shown["migrations"][0]["state"]) == (True, "held")
    assert [found["state"] for found in run("agent_migration_info", migration=migration)["migrations"]] == ["held"]
    done = run(migration=migration, resolve="back", said="enough")
    assert (done["changed"], done["migrations"][0]["state"]) == (True, "rolled_back")
    (decided,) = (e for e in read_all(moving.consul.client).journals[migration].entries if e.what == "resolved")
    assert (decided.resolution, decided.said) == ("back", "enough")
    assert not run(migration=migration, resolve="back")["changed"]
    too_late = run(migration=migration, resolve="keep")
    assert too_late["failed"]
    assert "is rolled back" in too_late["msg"]


def test_what_is_kept_is_finalised(moving: ShimHost, run: Run) -> None:
    migration = held(moving, "replicated", cut_over=False)
    done = run(migration=migration, resolve="keep")
    assert (done["changed"], done["migrations"][0]["state"]) == (True, "finalised")
    assert [found.instance for found in placed(moving, "Alpha").instances] == ["Alpha-2"]
    assert not run(migration=migration, resolve="keep")["changed"]


def test_a_loss_is_accepted_with_a_reason_and_only_where_it_is_one(moving: ShimHost, run: Run) -> None:
    migration = held(moving, "state", cut_over=True)
    for wrong, why in (
        ({"accept_loss": True, "said": "x"}, "accept_loss is a way back"),
        ({"resolve": "keep", "accept_loss": True, "said": "x"}, "accept_loss is a way back"),
        ({"resolve": "back", "accept_loss": True}, "accept_loss wants a reason"),
    ):
        assert why in run(migration=migration, **wrong)["msg"]
    assert "none is named" in run(agents=["Alpha"], resolve="back")["msg"]
    wanted = {"migration": migration, "resolve": "back", "accept_loss": True, "said": "it burnt"}
    for check in (True, False):
        assert "Alpha-1 has all that was accepted" in run(**wanted, _ansible_check_mode=check)["msg"]
    lease = LeaseDoc("Alpha", 2, "Alpha-2", "h2", state="released")
    kv.put_docs(moving.consul.client, [kv.Change(LEASES + "Alpha", lease, 0)])
    shown = run(**wanted, _ansible_check_mode=True)
    assert (shown["changed"], shown["migrations"][0]["state"]) == (True, "held")
    done = run(**wanted, wait_s=0)
    entry = next(e for e in read_all(moving.consul.client).journals[migration].entries if e.what == "resolved")
    assert (done["changed"], entry.resolution) == (True, "accept_loss")
    assert entry.said.endswith("accepted since 1970-01-01 00:00:02 UTC: it burnt")


def test_what_cannot_be_done_is_refused_whole(moving: ShimHost, run: Run) -> None:
    result = run(agents=["Alpha", "Beta"], to="moon")
    assert result["failed"]
    assert len(result["problems"]) == 2
    assert read_all(moving.consul.client).journals == {}
    assert kv.list_docs(moving.consul.client, FLEET, AgentDoc).docs["Alpha"][0].version == "v1"
    assert "neither agents" in run(to="local")["msg"]
