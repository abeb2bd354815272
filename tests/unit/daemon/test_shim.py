"""What Consul is told of an instance."""

from __future__ import annotations

from outrider.daemon.shim import service_of
from outrider.fleet.spec import Agent, Resources
from outrider.host.state import Local
from outrider.registry.layout import AgentDoc, Placed


def local(status: str = "passing", detail: str = "ok", **agent: object) -> Local:
    doc = AgentDoc("Model_Server", "reference", Agent(**agent), "v1")
    ports = {"health": 8200, "main": 7200}
    return Local(doc, Placed("Model_Server-1", "pc1", "v1"), "replica", status, detail, ports)


def test_a_service_says_what_callers_and_people_look_for() -> None:
    service = service_of(local(tier="core", tags=("vision",)), "pc1", "10.0.0.1")
    assert (service.id, service.name, service.address, service.port) == (
        "Model_Server-1",
        "Model-Server",
        "10.0.0.1",
        7200,
    )
    assert service.tags == ("outrider", "core", "replica", "vision")
    assert service.meta["agent"] == "Model_Server"
    assert service.meta["ports"] == '{"health": 8200, "main": 7200}'
    assert (service.check_id, service.status, service.output) == ("outrider:Model_Server-1", "passing", "ok")


def test_a_model_and_a_gpu_are_tags_and_none_comes_twice() -> None:
    found = service_of(local(model="m", resources=Resources(vram_mib=1), tags=("gpu",)), "pc1", "10.0.0.1")
    assert found.tags == ("outrider", "replica", "model", "gpu")


def test_whatever_does_not_serve_is_critical_and_says_why() -> None:
    for status in ("starting", "stopped", "parked", "missing", "critical"):
        assert service_of(local(status, ""), "pc1", "10.0.0.1").status == "critical"
        assert service_of(local(status, ""), "pc1", "10.0.0.1").output == status
    assert service_of(local("warning"), "pc1", "10.0.0.1").status == "warning"
