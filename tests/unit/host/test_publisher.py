"""What a catalogue says when its host and Consul know different things."""

from __future__ import annotations

import pytest

from outrider.discovery.feed import View
from outrider.discovery.records import Entry, Instance
from outrider.fleet.spec import Agent
from outrider.host.publisher import MAINTENANCE, entries_of, remote_evidence
from outrider.host.state import Local
from outrider.registry.layout import AgentDoc, Placed
from outrider.registry.services import CheckState, Service

ECHO = AgentDoc("Echo", "reference", Agent(), "v1")


def check(output: str, service: str = "Echo-2", check_id: str = "outrider:Echo-2") -> CheckState:
    return CheckState("pc2", check_id, service, "Echo" if service else "", "critical", output)


def remote(*names: str) -> tuple[Service, ...]:
    return tuple(Service(n, "Echo", "10.0.0.2", 7200, ("outrider",), {"agent": "Echo", "host": "pc2"}) for n in names)


def served(view: View, *locals_: Local, last: dict[str, Entry] | None = None) -> list[tuple[str, str]]:
    found = entries_of(view, {one.instance: one for one in locals_}, "pc1", "10.0.0.1", last or {})
    return [(instance.instance, instance.status) for instance in found["Echo"].instances]


def view_of(*critical: CheckState) -> View:
    return View({"Echo": ECHO}, {}, {"pc2": remote("Echo-2", "Echo-3")}, critical, documents_read=True)


@pytest.mark.parametrize(
    ("output", "evidence"),
    [("exited: signal 9", "gone"), ("stopped: by request", "gone"), ("starting", "gone"), ("probe: no", "suspected")],
)
def test_only_a_failed_probe_leaves_a_doubt(output: str, evidence: str) -> None:
    assert remote_evidence([check(output)]) == ({}, {("pc2", "Echo-2"): evidence})


def test_maintenance_is_certain_and_a_lost_node_is_not() -> None:
    lost, maintained = check("TTL expired", "", "outrider-shim"), check("shut down", "", MAINTENANCE)
    assert remote_evidence([lost])[0] == {"pc2": "suspected"}
    assert remote_evidence([lost, maintained])[0] == remote_evidence([maintained, lost])[0] == {"pc2": "gone"}


def test_a_critical_instance_is_left_out_while_another_passes() -> None:
    assert served(view_of(check("probe: no answer"))) == [("Echo-3", "passing")]


def test_in_panic_the_suspected_are_served_and_the_gone_are_not() -> None:
    third = check("exited: signal 9", "Echo-3", "outrider:Echo-3")
    assert served(view_of(check("probe: no answer"), third)) == [("Echo-2", "critical")]


def test_a_host_in_maintenance_serves_nothing() -> None:
    assert served(view_of(check("shut down", "", MAINTENANCE))) == []


def test_a_host_believes_itself_about_its_own_instances() -> None:
    stale = View({"Echo": ECHO}, {}, {"pc1": remote("Echo-1")}, documents_read=True)
    local = Local(ECHO, Placed("Echo-1", "pc1", "v1"), "replica", "critical", "exited: signal 9", {"main": 7200})
    assert served(stale, local) == []


def test_until_consul_answers_the_last_catalogue_speaks_for_other_hosts_only() -> None:
    here, there = (Instance("Echo", f"Echo-{n}", f"pc{n}", f"10.0.0.{n}", 7200, {}) for n in (1, 2))
    last = {"Echo": Entry("Echo", (here, there))}
    assert served(View({}, {}, {}), last=last) == [("Echo-2", "passing")]
