"""Since when what is so: what comes back begins anew, and a catalog that is being filled moves nobody."""

from __future__ import annotations

from outrider.discovery.feed import View
from outrider.failover.sight import ABSENT_S, GOSSIP, HEARD_S, Sight
from outrider.fleet.spec import Host
from outrider.registry.layout import SHIM, TAG, HostDoc
from outrider.registry.services import CheckState, Service

NAMES = ("a", "b")


def view(*critical: CheckState, nodes: tuple[str, ...] = NAMES) -> View:
    members = {name: (Service(SHIM, SHIM, "", 0), Service(f"A-{name}", "A", "", 0, (TAG,))) for name in NAMES}
    hosts = {name: HostDoc(Host(name)) for name in NAMES}
    return View({}, {}, members, critical, True, hosts, frozenset(nodes))


def check(node: str, check_id: str, service: str = "") -> CheckState:
    return CheckState(node, check_id, service, "", "critical", "")


def test_a_host_is_lost_since_gossip_says_so_and_well_since_it_no_longer_does() -> None:
    sight = Sight()
    sight.update(view(), 1.0)
    assert (sight.lost, sight.well) == ({}, {"a": 1.0, "b": 1.0})
    sight.update(view(check("a", GOSSIP)), 2.0)
    sight.update(view(check("a", GOSSIP)), 3.0)
    assert (sight.lost, sight.well) == ({"a": 2.0}, {"b": 1.0})
    sight.update(view(), 4.0)
    sight.update(view(check("a", GOSSIP)), 5.0)
    assert sight.lost == {"a": 5.0}


def test_a_host_that_left_the_catalog_is_lost_after_a_while() -> None:
    sight = Sight()
    sight.update(view(nodes=("b",)), 1.0)
    assert (sight.lost, sight.well) == ({}, {"b": 1.0})
    sight.update(view(nodes=("b",)), 1.0 + ABSENT_S)
    assert sight.lost == {"a": 1.0}
    sight.update(view(nodes=()), 20.0)
    assert sight.lost == {}


def test_an_instance_passes_while_neither_it_nor_its_host_has_a_critical_check() -> None:
    sight = Sight()
    sight.update(view(), 1.0)
    assert sight.passing == {("A-a", "a"): 1.0, ("A-b", "b"): 1.0}
    sight.update(view(check("a", "x", "A-a"), check("b", SHIM)), 2.0)
    assert sight.passing == {}
    sight.update(view(), 3.0)
    assert sight.passing[("A-a", "a")] == 3.0


def test_a_host_without_a_working_shim_gets_nothing_new() -> None:
    sight, seen = Sight(), view(check("a", SHIM))
    seen.members["b"] = ()
    seen.hosts["c"] = HostDoc(Host("c"))
    assert sight.picture(seen, 1.0).trouble == {
        "a": f"its check {SHIM} is critical",
        "b": "has no shim",
        "c": "is not in Consul's catalog",
    }


def test_a_host_that_its_peers_hear_has_lost_its_consul_agent_alone() -> None:
    sight = Sight()
    heard = frozenset({"a"})
    sight.update(view(check("a", GOSSIP)), 2.0, heard)
    # Consul's leader looks at all servers anew once a minute.
    sight.update(view(check("a", GOSSIP)), 2.0 + 60.0, heard)
    assert sight.lost == {}
    assert "a" not in sight.well
    sight.update(view(check("a", GOSSIP)), 63.0)
    assert sight.lost == {"a": 2.0}
    sight.update(view(check("a", GOSSIP)), 2.0 + HEARD_S, heard)
    assert sight.lost == {"a": 2.0}
