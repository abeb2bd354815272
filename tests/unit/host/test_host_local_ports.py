"""HAProxy's servers follow the catalogue, and what is right is left alone."""

from __future__ import annotations

from msgspec.structs import replace

from outrider.discovery.records import Entry, Instance
from outrider.host.local_ports import Slot, orders, read_slots

# As HAProxy 2.6 prints it, with fewer columns: a server that was disabled keeps the bit 4 when it is made ready.
STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_port srvrecord
3 Echo 1 near1 10.0.0.1 2 4 1 1 7000 -
3 Echo 2 far1 127.0.0.1 0 5 1 1 1 -
"""


def instance(number: int, host: str, port: int = 7000) -> Instance:
    return Instance("Echo", f"Echo-{number}", host, f"10.0.0.{number}", port, {})


def entry(*instances: Instance) -> dict[str, Entry]:
    return {"Echo": Entry("Echo", instances)}


def slot(name: str, address: str = "127.0.0.1", port: int = 1, *, ready: bool = False) -> Slot:
    return Slot("Echo", name, address, port, ready)


def points(name: str, address: str, port: int = 7000) -> list[str]:
    return [f"set server Echo/{name} addr {address} port {port}", f"set server Echo/{name} state ready"]


def leaves(name: str) -> list[str]:
    return [f"set server Echo/{name} state maint", f"shutdown sessions server Echo/{name}"]


def test_the_state_is_read_by_the_names_of_its_columns() -> None:
    assert read_slots(STATE) == [slot("near1", "10.0.0.1", 7000, ready=True), slot("far1")]
    assert read_slots("1\n") == []


def test_what_is_right_is_left_alone() -> None:
    slots = [slot("near1", "10.0.0.1", 7000, ready=True), slot("far1", "10.0.0.2", 7000, ready=True), slot("far2")]
    assert orders(slots, entry(instance(1, "here"), instance(2, "there")), "here") == []


def test_who_comes_gets_a_spare_server_and_is_ready_last() -> None:
    slots = [slot("near1"), slot("far1")]
    assert orders(slots, entry(instance(1, "here")), "here") == points("near1", "10.0.0.1")
    assert orders(slots, entry(instance(1, "there")), "here") == points("far1", "10.0.0.1")


def test_who_leaves_makes_room_and_its_connections_are_closed() -> None:
    told = orders([slot("far1", "10.0.0.9", 7000, ready=True)], entry(instance(1, "there")), "here")
    assert told == leaves("far1") + points("far1", "10.0.0.1")


def test_an_agent_that_nobody_serves_or_declares_has_no_server() -> None:
    ready = [slot("far1", "10.0.0.1", 7000, ready=True)]
    assert orders(ready, {"Echo": Entry("Echo")}, "here") == leaves("far1")
    assert orders(ready, {}, "here") == leaves("far1")


def test_an_instance_that_has_moved_to_this_host_is_no_backup_any_more() -> None:
    moved = orders([slot("far1", "10.0.0.1", 7000, ready=True), slot("near1")], entry(instance(1, "here")), "here")
    assert moved == leaves("far1") + points("near1", "10.0.0.1")


def test_more_instances_than_servers_leaves_the_last_ones_out() -> None:
    told = orders([slot("far1")], entry(*(instance(n, "there") for n in (1, 2, 3))), "here")
    assert told == points("far1", "10.0.0.1")


def test_a_standby_gets_nothing_and_one_that_is_ill_only_what_nobody_else_can_take() -> None:
    standby, ill = replace(instance(1, "here"), role="standby"), replace(instance(2, "here"), ill=True)
    slots = [slot("near1"), slot("far1")]
    assert orders(slots, entry(standby, ill, instance(3, "there")), "here") == points("far1", "10.0.0.3")
    assert orders(slots, entry(standby, ill), "here") == points("near1", "10.0.0.2")


def test_in_panic_the_suspected_are_tried() -> None:
    suspected = replace(instance(1, "there"), status="critical")
    assert orders([slot("far1")], entry(suspected), "here") == points("far1", "10.0.0.1")
