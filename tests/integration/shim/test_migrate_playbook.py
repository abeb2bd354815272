"""`playbooks/migrate.yml` as a user runs it, against a real Consul and carried out by a real shim."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace

from integration.roles.playing import ROOT, Outcome, run
from outrider.fleet.spec import Host
from outrider.migration.staged.journal import read_all
from outrider.registry import kv
from outrider.registry.layout import FLEET, HOSTS, PLACEMENT, AgentDoc, HostDoc, PlacementDoc

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)
Play = Callable[..., Outcome]


@pytest.fixture
def moving(serving: ShimHost) -> ShimHost:
    """Its agents pass, and Consul knows what its host has."""
    kv.put_docs(serving.consul.client, [kv.Change(HOSTS + "local", HostDoc(Host("local")), 0)])
    return serving


@pytest.fixture
def migrate(moving: ShimHost, tmp_path: Path) -> Play:
    """In the embedded form, with a fleet file in which each agent has got another environment."""
    agent = replace(moving.small, environment={"NEW": "1"})
    agents = {name: msgspec.to_builtins(agent) for name in moving.docs}
    fleet = {"fleet": "test", "groups": {"agent_hosts": {"agents": agents}}}
    (tmp_path / "fleet.yml").write_text(json.dumps(fleet))
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    groups = {name: {"hosts": {"local": None}} for name in ("agent_hosts", "consul_servers")}
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(json.dumps({"all": {"hosts": {"local": local}, "children": groups}}))
    (moving.folder / "run").symlink_to("runtime")
    settled = {
        "fleet_file": str(tmp_path / "fleet.yml"),
        "agents_supervisor": "supervisord",
        "agents_folder": str(moving.folder),
        "agents_cache_folder": str(tmp_path / "cache"),
        "agents_releases_folder": str(tmp_path / "releases"),
        "__agents_ports": {"ports": {"consul_http": moving.consul.ports["http"]}},  # its Consul is no site's
        "policy": {"override": "a test", "verify_s": 5, "undecided": "accept", "approvals": 0},
    }

    def play(*options: str, **variables: Any) -> Outcome:
        return run(ROOT / "playbooks" / "migrate.yml", inventory, tmp_path, settled | variables, *options)

    return play


def places(host: ShimHost) -> dict[str, list[tuple[str, str]]]:
    found = kv.list_docs(host.consul.client, PLACEMENT, PlacementDoc).docs
    return {name: [(placed.instance, placed.version) for placed in doc.instances] for name, (doc, _) in found.items()}


def outcomes(host: ShimHost) -> list[tuple[str, Any]]:
    journals = read_all(host.consul.client).journals.values()
    return sorted((journal.spec.agent, journal.ended and journal.ended.outcome) for journal in journals)


def test_a_new_version_is_rehearsed_and_no_instance_is_restarted(moving: ShimHost, migrate: Play) -> None:
    before, pids = places(moving), [moving.pid(name) for name in moving.docs]
    shown = migrate("--check", state="rehearsed")
    assert shown.status == 0, shown.output
    assert read_all(moving.consul.client).journals == {}
    done = migrate(state="rehearsed")
    assert done.status == 0, done.output
    assert outcomes(moving) == [(name, "rehearsed") for name in moving.docs]
    risks = [journal.spec.risk for journal in read_all(moving.consul.client).journals.values()]
    assert all(risk and "days of record" in risk.said[0] for risk in risks)  # the shim of the host was asked
    assert (places(moving), [moving.pid(name) for name in moving.docs]) == (before, pids)
    again = migrate(state="rehearsed")
    assert (again.status, again.changed) == (0, 0), again.output
    assert len(outcomes(moving)) == len(before)


def test_a_move_is_rehearsed_by_name(moving: ShimHost, migrate: Play) -> None:
    doc, index = kv.get_doc(moving.consul.client, FLEET + "Beta", AgentDoc)
    assert doc
    kv.put_docs(moving.consul.client, [kv.Change(FLEET + "Beta", replace(doc, version="v2", previous=doc), index)])
    before = places(moving)
    done = migrate(state="rehearsed", agent="Beta", to="local")
    assert done.status == 0, done.output
    assert (outcomes(moving), places(moving)) == ([("Beta", "rehearsed")], before)
    wrong = migrate(state="rehearsed", agent="Beta", to="moon")
    assert wrong.status != 0
    assert "wanted is one of local" in wrong.output
