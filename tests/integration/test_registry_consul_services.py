"""Registrations, checks and the way past the local agent, against a real Consul."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from outrider.registry import services
from outrider.registry.services import CheckState, NotRegistered, Service

WITHIN_S = 30.0


@pytest.fixture
def service(request, shared_consul) -> Service:
    """A service of this test alone, registered with a passing check."""
    name = request.node.name.replace("_", "-")[:40]
    made = Service(
        id=f"{name}-1",
        name=name,
        address="127.0.0.1",
        port=7000,
        tags=("outrider", "model"),
        meta={"agent": name, "host": "local", "ports": '{"main": 7000}'},
        check_id=f"outrider:{name}-1",
        status="passing",
    )
    services.register(shared_consul.client, made)
    return made


def critical(server) -> list[CheckState]:
    return services.critical(server.client.get("/v1/health/state/critical"))


def eventually(says: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not says():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_what_was_registered_is_held_locally_and_in_the_catalog(shared_consul, service) -> None:
    assert services.local_services(shared_consul.client)[service.id] == service
    in_catalog = {found.id: found for found in services.node_services(shared_consul.client, shared_consul.node)}
    assert in_catalog[service.id] == replace(service, check_id="", status="", output="")


def test_a_failed_check_is_critical_with_its_output(shared_consul, service) -> None:
    services.set_check(shared_consul.client, service.check_id, "critical", "exited: killed by signal 9")
    assert CheckState(
        shared_consul.node, service.check_id, service.id, service.name, "critical", "exited: killed by signal 9"
    ) in critical(shared_consul)


def test_registering_again_does_not_bring_a_failed_check_back(shared_consul, service) -> None:
    services.set_check(shared_consul.client, service.check_id, "critical", "probe: timed out")
    services.register(shared_consul.client, replace(service, port=7001))
    assert service.id in {check.service_id for check in critical(shared_consul)}
    assert services.local_services(shared_consul.client)[service.id].port == 7001


def test_an_unknown_check_must_be_registered(shared_consul) -> None:
    with pytest.raises(NotRegistered):
        services.set_check(shared_consul.client, "outrider:nobody", "passing", "")
    with pytest.raises(NotRegistered):
        services.pass_check(shared_consul.client, "nobody")


def test_deregistering_twice_is_no_error(shared_consul, service) -> None:
    for _ in range(2):
        services.deregister(shared_consul.client, service.id)
    assert service.id not in services.local_services(shared_consul.client)
    nodes = services.node_services(shared_consul.client, shared_consul.node)
    assert service.id not in {found.id for found in nodes}


def test_ids_with_characters_that_urls_treat_specially(shared_consul) -> None:
    odd = Service("a b?c#d%e-1", "odd", "127.0.0.1", 1, check_id="outrider:a b?c#d%e-1", status="passing")
    services.register(shared_consul.client, odd)
    services.set_check(shared_consul.client, odd.check_id, "critical", "")
    assert odd.check_id in {check.check_id for check in critical(shared_consul)}
    services.deregister(shared_consul.client, odd.id)
    assert odd.id not in services.local_services(shared_consul.client)


def test_a_host_check_runs_out_when_nobody_renews_it(shared_consul) -> None:
    services.register_node_check(shared_consul.client, "outrider-shim", "Outrider shim", 0.3)
    services.pass_check(shared_consul.client, "outrider-shim")
    assert "outrider-shim" not in {check.check_id for check in critical(shared_consul)}
    eventually(lambda: ("outrider-shim", "") in {(c.check_id, c.service_id) for c in critical(shared_consul)})
    services.pass_check(shared_consul.client, "outrider-shim")
    assert "outrider-shim" not in {check.check_id for check in critical(shared_consul)}


def test_renewing_a_check_that_is_unchanged_writes_nothing(shared_consul, service) -> None:
    def index() -> int:
        return int(json.loads(shared_consul.client.get("/v1/agent/self").body)["Stats"]["raft"]["last_log_index"])

    services.pass_check(shared_consul.client, service.check_id)
    before = index()
    for _ in range(20):
        services.pass_check(shared_consul.client, service.check_id)
    assert index() - before <= 2, "raft writes some of its own"


def test_maintenance_takes_every_service_of_the_host_out_and_back(shared_consul) -> None:
    services.maintenance(shared_consul.client, True, "planned: new disk")
    (check,) = [check for check in critical(shared_consul) if check.check_id == "_node_maintenance"]
    assert (check.service_id, check.node) == ("", shared_consul.node)
    services.maintenance(shared_consul.client, False, "")
    assert "_node_maintenance" not in {check.check_id for check in critical(shared_consul)}


def test_escalating_writes_into_the_catalog_what_the_local_agent_does_not_know(shared_consul, service) -> None:
    node = shared_consul.node
    services.escalate(shared_consul.client, node, service.check_id, service.id, "critical", "exited: 1")
    expected = CheckState(node, service.check_id, service.id, service.name, "critical", "exited: 1")
    assert expected in critical(shared_consul)
    assert services.local_services(shared_consul.client)[service.id].status == "passing"


def test_escalating_a_check_of_the_host(shared_consul) -> None:
    services.register_node_check(shared_consul.client, "whole-host", "whole host", 60)
    services.escalate(shared_consul.client, shared_consul.node, "whole-host", "", "critical", "gone")
    assert "whole-host" in {check.check_id for check in critical(shared_consul)}


@pytest.mark.parametrize(("node", "service_id"), [("nowhere", ""), ("nowhere", "A-1"), ("local", "nothing-1")])
def test_escalating_never_makes_up_a_node_or_service(shared_consul, node, service_id) -> None:
    with pytest.raises(NotRegistered):
        services.escalate(shared_consul.client, node, "outrider:x", service_id, "critical", "")
    assert b"nowhere" not in shared_consul.client.get("/v1/catalog/nodes").body
    assert services.node_services(shared_consul.client, "nowhere") == []
