"""Two hosts, each with its own Consul agent and shim: one is drained under load, or lost and found."""

from __future__ import annotations

import http.client
import itertools
import json
import sys
import time
from typing import TYPE_CHECKING

import pytest

from integration.shim.shim_host import SMALL
from integration.shim.under_load import COUNTER, UnderLoad, counting
from outrider.calls.client import Client
from outrider.cli.main import main
from outrider.fleet.spec import Agent
from outrider.registry import kv, leases
from outrider.registry.layout import FLEET, PLACEMENT, AgentDoc, Placed, PlacementDoc

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)
pytestmark = pytest.mark.integration


def publish(host: ShimHost, name: str, agent: Agent, placed: Placed) -> None:
    docs = [kv.Change(FLEET + name, AgentDoc(name, "test", agent, "v1"), 0)]
    kv.put_docs(host.consul.client, [*docs, kv.Change(PLACEMENT + name, PlacementDoc(name, (placed,)), 0)])


def asked(host: ShimHost, agent: str) -> int:
    """The port of whoever the host's catalogue names and who answers, over a new connection. Raises OSError."""
    served = host.served(agent)
    if not served:
        raise OSError("nobody is served")
    connection = http.client.HTTPConnection("127.0.0.1", served[0].port, timeout=2)
    try:
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"ok"
        return served[0].port
    finally:
        connection.close()


def test_a_drained_host_is_emptied_without_a_failed_call(
    hosts: tuple[ShimHost, ShimHost], capsys: pytest.CaptureFixture[str]
) -> None:
    local, other = hosts
    publish(local, "Alpha", SMALL, Placed("Alpha-1", "other", "v1"))
    bound = Agent(command=SMALL.command, ports=SMALL.ports, hosts=("other",))
    publish(local, "Beta", bound, Placed("Beta-1", "other", "v1", "other"))
    local.start()
    other.start()
    local.wait(lambda: other.passing("Alpha", "Beta") and bool(local.served("Alpha")))
    runtime = ["--runtime", str(local.folder / "runtime")]
    local.wait(lambda: json.loads(local.request("GET", "/v1/placement"))["placer"] != "")
    with UnderLoad(lambda: asked(local, "Alpha")) as here, UnderLoad(lambda: asked(other, "Alpha")) as there:
        status = main([*runtime, "drain", "other", "--reason", "a new disk", "--wait", "30", "--json"])
        time.sleep(0.5)
    drained = json.loads(capsys.readouterr().out)
    with capsys.disabled():
        print(f"\ndrained in {drained['took_s']} s, {len(here.answers) + len(there.answers)} calls")
    assert (status, drained["moved"]) == (1, ["Alpha-1"])
    assert drained["stayed"] == {"Beta-1": "other is drained: a new disk; it may run on other alone"}
    assert (here.errors, there.errors) == ([], [])
    assert [len({port for _, port in each.answers}) for each in (here, there)] == [2, 2]
    assert [i.host for i in other.served("Alpha")] == ["local"]
    assert main([*runtime, "status"]) == 0
    assert "other is drained (a new disk)" in capsys.readouterr().out
    assert main([*runtime, "place", "Alpha", "--explain"]) == 0
    said = capsys.readouterr().out
    assert "Alpha-1 leaves other: it passes on local" in " ".join(said.split())
    assert "if local were lost: local is lost; no other host may run it" in said
    assert main([*runtime, "undrain", "other"]) == 0
    local.wait(lambda: json.loads(local.request("GET", "/v1/hosts/other"))["state"] == "active")
    assert [i.host for i in other.served("Alpha")] == ["local"]


def test_a_drained_hosts_singleton_passes_its_lease_on_without_a_failed_call(
    hosts: tuple[ShimHost, ShimHost], capsys: pytest.CaptureFixture[str]
) -> None:
    local, other = hosts
    log = {"COUNTER_LOG": str(local.folder / "counted")}
    counter = Agent(
        command=(sys.executable, str(COUNTER)), ports={"call": "auto"}, mode="singleton", environment=log, probes=()
    )
    publish(local, "Counter", counter, Placed("Counter-1", "other", "v1"))
    local.start()
    other.start()
    runtime = ["--runtime", str(local.folder / "runtime")]
    local.wait(lambda: other.passing("Counter") and any(instance.epoch for instance in local.served("Counter")))
    local.wait(lambda: json.loads(local.request("GET", "/v1/placement"))["placer"] != "")
    client = Client(runtime=local.folder / "runtime", caller="test")
    with counting(client) as caller:
        local.wait(lambda: len(caller.answers) > 20)
        assert main([*runtime, "drain", "other", "--wait", "30", "--json"]) == 0
        answered = len(caller.answers)
        local.wait(lambda: len(caller.answers) > answered + 20)
    client.close()
    longest_s = max(later[0] - sooner[0] for sooner, later in itertools.pairwise(caller.answers))
    with capsys.disabled():
        print(f"\nlongest wait for an answer: {longest_s * 1e3:.0f} ms of {len(caller.answers)} calls")
    assert caller.errors == []
    reply = local.consul.client.get(f"/v1/kv/{leases.LEASES}", params={"recurse": ""})
    lease = leases.decode_leases(reply)[0]["Counter"]
    assert lease.doc.host == "local"
    assert lease.doc.reason == "on other it gave it up: handed over to Counter-1 on local"
    epochs = [said["epoch"] for _, said in caller.answers]
    assert epochs == sorted(epochs)


def test_a_lost_hosts_instance_serves_elsewhere_and_stays_there_when_it_returns(
    hosts: tuple[ShimHost, ShimHost], capsys: pytest.CaptureFixture[str]
) -> None:
    local, other = hosts
    publish(local, "Alpha", SMALL, Placed("Alpha-1", "other", "v1"))
    local.start()
    other.start()
    local.wait(lambda: other.passing("Alpha") and bool(local.served("Alpha")))
    local.wait(lambda: json.loads(local.request("GET", "/v1/placement"))["placer"] != "")
    began = time.monotonic()
    other.consul.stop()
    other.close()  # the shim and its agents
    local.wait(lambda: [(i.host, i.status) for i in local.served("Alpha")] == [("local", "passing")])
    with capsys.disabled():
        print(
            f"\nserved elsewhere {time.monotonic() - began:.1f} s after its host was lost, gossip at Consul's defaults"
        )
    doc, index = kv.get_doc(local.consul.client, PLACEMENT + "Alpha", PlacementDoc)
    assert doc
    assert doc.reason.startswith("Alpha-1 moves from other to local: other is lost")
    other.consul.start()
    other.start()
    other.wait(lambda: [i.host for i in other.served("Alpha")] == ["local"] and not other.agents())
    local.wait(lambda: json.loads(local.request("GET", "/v1/placement/Alpha"))["if_lost"][0]["target"] == "other")
    assert kv.get_doc(local.consul.client, PLACEMENT + "Alpha", PlacementDoc) == (doc, index)
