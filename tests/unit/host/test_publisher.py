"""What a catalogue says when its host and Consul know different things."""

from __future__ import annotations

from typing import Literal

import pytest

from outrider.discovery.feed import View
from outrider.discovery.records import Entry, Instance
from outrider.fleet.spec import Agent
from outrider.host.peers import NO_EVIDENCE, Evidence
from outrider.host.publisher import MAINTENANCE, doors, marked, picture_of, remote_evidence
from outrider.host.state import Local
from outrider.registry.layout import AgentDoc, Placed, PlacementDoc
from outrider.registry.leases import Lease, LeaseDoc
from outrider.registry.services import CheckState, Service

ECHO = AgentDoc("Echo", "reference", Agent(), "v1")


def check(output: str, service: str = "Echo-2", check_id: str = "outrider:Echo-2") -> CheckState:
    return CheckState("pc2", check_id, service, "Echo" if service else "", "critical", output)


def remote(*names: str) -> tuple[Service, ...]:
    return tuple(Service(n, "Echo", "10.0.0.2", 7200, ("outrider",), {"agent": "Echo", "host": "pc2"}) for n in names)


def served(
    view: View, *locals_: Local, last: dict[str, Entry] | None = None, told: Evidence = NO_EVIDENCE
) -> list[tuple[str, str]]:
    found = picture_of(
        view, {one.instance: one for one in locals_}, {}, "pc1", "10.0.0.1", last or {}, peers=told
    ).entries
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


def test_other_hosts_instances_that_lack_a_need_are_ordered_as_ours_are() -> None:
    local = Local(ECHO, Placed("Echo-1", "pc1", "v1"), "replica", "warning", "needs Clock: ...", {"main": 7200})
    here = {"Echo-1": local}
    lacking = {"Echo-1", "Echo-2", "Echo-3"}
    found = picture_of(view_of(check("probe: no")), here, {}, "pc1", "10.0.0.1", {}, lacking).entries
    assert [(i.instance, i.status) for i in found["Echo"].instances] == [("Echo-1", "warning"), ("Echo-3", "warning")]


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


def test_what_peers_tell_to_be_down_is_gone_and_what_hangs_is_suspected() -> None:
    died = Evidence(instances={("pc2", "Echo-2"): "exited: signal 9"})
    assert served(view_of(), told=died) == [("Echo-3", "passing")]
    both = {("pc2", "Echo-2"): "exited: signal 9", ("pc2", "Echo-3"): "probe: no answer"}
    assert served(view_of(), told=Evidence(instances=both)) == [("Echo-3", "critical")]
    assert served(view_of(), told=Evidence(instances={("pc9", "Echo-2"): "exited: signal 9"})) == served(view_of())


def test_a_host_that_peers_vote_down_is_suspected_as_one_that_gossip_lost() -> None:
    local = Local(ECHO, Placed("Echo-1", "pc1", "v1"), "replica", "passing", "ok", {"main": 7200})
    lost = Evidence(frozenset({"pc2"}))
    assert served(view_of(), local, told=lost) == [("Echo-1", "passing")]
    assert served(view_of(), told=lost) == [("Echo-2", "critical"), ("Echo-3", "critical")]
    last = {"Echo": Entry("Echo", tuple(Instance("Echo", f"Echo-{n}", f"pc{n}", "10.0.0.2", n, {}) for n in (2, 3)))}
    assert served(View({}, {}, {}), last=last, told=lost) == [("Echo-3", "passing")]


def test_lost_hosts_are_told_with_the_agents_that_have_instances_there() -> None:
    view = view_of()
    view.agents["Other"] = AgentDoc("Other", "reference", Agent(), "v1")
    for down in (Evidence(frozenset({"pc2"})), Evidence(frozenset({"pc2"}), lost=frozenset({"pc2", "pc3"}))):
        found = picture_of(view, {}, {}, "pc1", "10.0.0.1", {}, peers=down).entries
        assert (found["Echo"].lost, found["Other"].lost) == (("pc2",) if down.lost else (), ())
        assert [i.status for i in found["Echo"].instances] == ["critical"] * 2
    view.placements["Echo"] = PlacementDoc("Echo", held="moves")
    assert picture_of(view, {}, {}, "pc1", "10.0.0.1", {}, peers=down).entries["Echo"].lost == ("pc2",)


def test_a_hosts_doors_are_the_ports_that_calls_go_to() -> None:
    view = view_of()
    call = {"agent": "Echo", "host": "pc2", "ports": '{"main": 7201, "call": 7300}'}
    without = (Service("x", "x", "10.0.0.2", 0, ("outrider",)), Service("mysql", "mysql", "10.0.0.2", 3306))
    view.members["pc2"] = (
        *remote("Echo-2"),
        Service("Echo-3", "Echo", "10.0.0.2", 7201, ("outrider",), call),
        *without,
    )
    assert doors(view, "pc2") == [("10.0.0.2", 7200), ("10.0.0.2", 7300)]
    assert doors(view, "pc3") == []


def test_peers_put_nothing_into_routing_that_consul_took_out() -> None:
    both = view_of(check("exited: signal 9"), check("probe: no", "Echo-3", "outrider:Echo-3"))
    hangs = Evidence(instances={("pc2", "Echo-2"): "probe: no answer"})
    assert served(both, told=hangs) == served(both) == [("Echo-3", "critical")]


def test_a_host_believes_itself_and_not_its_peers() -> None:
    local = Local(ECHO, Placed("Echo-1", "pc1", "v1"), "replica", "passing", "ok", {"main": 7200})
    lies = Evidence(frozenset({"pc1"}), {("pc1", "Echo-1"): "exited: signal 9"})
    assert served(View({"Echo": ECHO}, {}, {}, documents_read=True), local, told=lies) == [("Echo-1", "passing")]


def test_what_is_ill_for_callers_is_marked_and_nothing_else_changes() -> None:
    one, other = (Instance("Echo", f"Echo-{n}", "h", "10.0.0.1", n, {}) for n in (1, 2))
    entries = {"Echo": Entry("Echo", (one, other)), "Other": Entry("Other")}
    assert marked(entries, frozenset()) is entries
    found = marked(entries, frozenset({"Echo-2"}))
    assert [i.ill for i in found["Echo"].instances] == [False, True]
    assert found["Other"] is entries["Other"]


def lease(holder: str, host: str, state: Literal["held", "released"] = "held") -> dict[str, Lease]:
    return {"Echo": Lease(LeaseDoc("Echo", 7, holder, host, state=state), 1, "a session")}


def singleton(name: str, host: str, role: str = "standby") -> Service:
    return Service(name, "Echo", "10.0.0.2", 7200, ("outrider",), {"agent": "Echo", "host": host, "role": role})


def test_only_the_holder_of_a_lease_is_called_whatever_its_registration_says() -> None:
    members = {"pc2": (singleton("Echo-2", "pc2", "holder"),), "pc3": (singleton("Echo-3", "pc3"),)}
    view = View({"Echo": ECHO}, {}, members, (), documents_read=True)
    found = picture_of(view, {}, lease("Echo-3", "pc3"), "pc1", "10.0.0.1", {})
    assert [(i.instance, i.role, i.epoch) for i in found.entries["Echo"].instances] == [("Echo-3", "holder", 7)]
    assert [(i.instance, i.role) for i in found.standbys["Echo"]] == [("Echo-2", "standby")]


def test_nobody_is_called_after_the_holder_gave_its_lease_up() -> None:
    members = {"pc2": (singleton("Echo-2", "pc2", "holder"),)}
    view = View({"Echo": ECHO}, {}, members, (), documents_read=True)
    found = picture_of(view, {}, lease("Echo-2", "pc2", "released"), "pc1", "10.0.0.1", {})
    assert found.entries["Echo"].instances == ()


def test_a_name_that_moved_is_the_holder_only_where_the_lease_says() -> None:
    members = {"pc2": (singleton("Echo-1", "pc2"),), "pc3": (singleton("Echo-1", "pc3"),)}
    view = View({"Echo": ECHO}, {}, members, (), documents_read=True)
    found = picture_of(view, {}, lease("Echo-1", "pc3"), "pc1", "10.0.0.1", {})
    assert [i.host for i in found.entries["Echo"].instances] == ["pc3"]
