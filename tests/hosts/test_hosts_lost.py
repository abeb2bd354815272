"""A host rebooted, lost for good, wiped, removed, and a new one added: each by its documented command."""

from __future__ import annotations

from hosts.fleet import Fleet, until
from hosts.load import load
from hosts.test_consul_operations import SERVERS, healthy, voters


def others(host: str) -> list[str]:
    return [name for name in ("lab1", "lab2", "lab3", "lab4") if name != host]


def test_a_host_that_reboots_comes_back_by_itself(fleet: Fleet) -> None:
    fleet.wait_well()
    with load(fleet, others("lab2"), "lab4") as measured:
        fleet.lab.reboot("lab2")
        took = fleet.wait_well()
    assert measured[0].failed == 0, measured
    print(f"reboot to 77 passing: {took:.0f} s; {measured[0]}")


def test_a_server_lost_for_good_is_replaced(fleet: Fleet) -> None:
    """By a machine without anything, as a host that was wiped is."""
    until(lambda: healthy(fleet), 60, fleet.what_is_wrong)
    fleet.lab.machines()["lab3"].power_off()
    with load(fleet, ["lab1", "lab2", "lab4"], "lab4") as measured:
        removed = fleet.play("remove.yml", host="lab3")
        assert removed.status == 0, removed.output
        assert voters(fleet) == {"lab1", "lab2"}
        fleet.lab.rebuild("lab3")
        replaced = fleet.play("replace.yml", host="lab3")
        assert replaced.status == 0, replaced.output
    until(lambda: voters(fleet) == set(SERVERS) and healthy(fleet), 60, fleet.what_is_wrong)
    took = fleet.wait_well()
    assert measured[0].failed == 0, measured
    print(f"server replaced: {replaced.seconds:.0f} s, then {took:.0f} s; {measured[0]}")


def test_a_client_is_removed_and_a_new_machine_is_added_with_limit(fleet: Fleet) -> None:
    fleet.wait_well()
    old = fleet.tokens()["hosts"]["lab4"]["secret"]
    removed = fleet.play("remove.yml", host="lab4")
    assert removed.status == 0, removed.output
    status, nodes = fleet.consul("lab1", "catalog/nodes")
    assert (status, {node["Node"] for node in nodes}) == (200, set(SERVERS))
    again = fleet.play("remove.yml", host="lab4")
    assert again.status == 0, again.output
    fleet.lab.rebuild("lab4")
    added = fleet.play("site.yml", "--limit", "lab4")
    assert added.status == 0, added.output
    took = fleet.wait_well()
    assert fleet.consul("lab1", "acl/token/self", token=old)[0] == 403
    print(f"site.yml --limit of a new client: {added.seconds:.0f} s, then {took:.0f} s")


def test_a_name_that_is_no_host_is_refused(fleet: Fleet) -> None:
    played = fleet.play("remove.yml", host="lab9")
    assert played.status != 0
    assert "-e host='lab9': wanted is one of" in " ".join(played.output.split())
    assert played.changed == 0
