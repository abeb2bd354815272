"""Looking agents up in a real Consul, on a host where no shim runs or none confirms the catalogue any more."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from integration.conftest import ConsulServer
from outrider.discovery import api, direct
from outrider.discovery.catalogue import CatalogueWriter
from outrider.discovery.records import Entry
from outrider.errors import ConsulError, ConsulUnreachable, UnknownAgent
from outrider.registry import services
from outrider.registry.services import Service


@pytest.fixture(autouse=True)
def asked(shared_consul: ConsulServer, monkeypatch: pytest.MonkeyPatch) -> ConsulServer:
    """The server whose address the environment names."""
    monkeypatch.setenv("CONSUL_HTTP_ADDR", shared_consul.http_url)
    return shared_consul


def register(server: ConsulServer, agent: str, number: int, status: str, output: str, **meta: str) -> None:
    instance = f"{agent}-{number}"
    check = f"outrider:{instance}"
    told = {"agent": agent, "host": "mainpc", "version": "v1", "ports": '{"main": 7001}', **meta}
    # Registered as it never is here: a change of the output alone would reach the catalog minutes later.
    service = Service(instance, agent, "127.0.0.1", 7000 + number, ("outrider",), told, check, "warning")
    services.register(server.client, service)
    services.set_check(server.client, check, status, output)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        reply = server.client.get(f"/v1/health/checks/{agent}")
        if (instance, status) in {(c["ServiceID"], c["Status"]) for c in json.loads(reply.body)}:
            return
        time.sleep(0.01)
    pytest.fail(f"{instance} never became {status}")


def found(agent: str, folder: Path) -> list[tuple[str, str]]:
    return [(i.instance, i.status) for i in api.lookup(agent, runtime=str(folder)).instances]


def test_the_answer_of_consul_has_everything_and_says_where_it_is_from(asked: ConsulServer, tmp_path: Path) -> None:
    register(asked, "Memory", 1, "passing", "ok", role="holder", epoch="7")
    answer = api.lookup("Memory", runtime=str(tmp_path))
    assert answer.source == "consul"
    assert answer.age_s >= 0
    [instance] = answer.instances
    assert (instance.host, instance.port, instance.ports) == ("mainpc", 7001, {"main": 7001})
    assert (instance.role, instance.epoch, instance.version) == ("holder", 7, "v1")


def test_standbys_are_not_called(asked: ConsulServer, tmp_path: Path) -> None:
    register(asked, "Twice", 1, "passing", "ok", role="standby")
    register(asked, "Twice", 2, "passing", "ok", role="holder", epoch="7")
    assert found("Twice", tmp_path) == [("Twice-2", "passing")]


async def test_coroutines_ask_it_too(asked: ConsulServer, tmp_path: Path) -> None:
    register(asked, "Async", 1, "passing", "ok")
    assert (await api.alookup("Async", runtime=str(tmp_path))).source == "consul"


def test_the_panic_rule_holds_here_too(asked: ConsulServer, tmp_path: Path) -> None:
    register(asked, "Panic", 1, "critical", "probe: no answer in 1 s")
    register(asked, "Panic", 2, "critical", "exited: status 3")
    register(asked, "Spare", 1, "critical", "probe: no answer in 1 s")
    register(asked, "Spare", 2, "passing", "ok", ports="garbled", epoch="x")
    assert found("Panic", tmp_path) == [("Panic-1", "critical")]
    assert found("Spare", tmp_path) == [("Spare-2", "passing")]


def test_a_host_in_maintenance_is_not_routed_to(asked: ConsulServer, tmp_path: Path) -> None:
    register(asked, "Drained", 1, "passing", "ok")
    services.maintenance(asked.client, True, "test")
    try:
        deadline = time.monotonic() + 10
        while found("Drained", tmp_path) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert found("Drained", tmp_path) == []
    finally:
        services.maintenance(asked.client, False, "")


def test_unknown_agents_are_refused_with_the_nearest_and_services_of_others_are_none(
    asked: ConsulServer, tmp_path: Path
) -> None:
    register(asked, "Planner", 1, "passing", "ok")
    with pytest.raises(UnknownAgent, match="did you mean Planner"):
        api.lookup("Plannr", runtime=str(tmp_path))
    for name in ("consul", "a/b", "Pl?x=y", ""):
        with pytest.raises(UnknownAgent):
            api.lookup(name, runtime=str(tmp_path))


def test_a_name_unknown_to_a_retired_catalogue_is_asked_of_consul(asked: ConsulServer, tmp_path: Path) -> None:
    register(asked, "Newer", 1, "passing", "ok")
    writer = CatalogueWriter(tmp_path)
    writer.publish({"Older": Entry("Older")})
    with pytest.raises(UnknownAgent):
        api.lookup("Newer", runtime=str(tmp_path))
    writer.retire()
    assert api.lookup("Newer", runtime=str(tmp_path)).source == "consul"
    assert api.lookup("Older", runtime=str(tmp_path)).source == "catalogue"
    writer.close()


def test_without_catalogue_and_consul_the_error_says_so(
    asked: ConsulServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    register(asked, "Any", 1, "passing", "ok")
    assert api.lookup("Any", runtime=str(tmp_path)).source == "consul"
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")  # another Consul from here on, in the same process
    with pytest.raises(ConsulUnreachable):
        api.lookup("Any", runtime=str(tmp_path))
    writer = CatalogueWriter(tmp_path)
    writer.publish({"Older": Entry("Older")})
    writer.retire()
    with pytest.raises(UnknownAgent, match="no agent Any in the fleet"):
        api.lookup("Any", runtime=str(tmp_path))
    writer.close()


@pytest.mark.parametrize("text", ["unix:///run/consul.sock", "host:port", "http://:1", "host:99999"])
def test_an_address_that_cannot_be_used_is_named(text: str) -> None:
    with pytest.raises(ConsulError, match="CONSUL_HTTP_ADDR is"):
        direct.address_of(text)
