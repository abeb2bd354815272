"""A singleton that knows of no lease, on two hosts: it runs under the lease alone, whatever becomes of its shim."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from outrider.discovery.lease_file import LeaseReader, lease_path
from outrider.failover.rules import STOP_S
from outrider.fleet.spec import Agent, Probe
from outrider.registry import kv
from outrider.registry.layout import FLEET, PLACEMENT, AgentDoc, Placed, PlacementDoc

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

    Pair = tuple[ShimHost, ShimHost]

pytest_plugins = ("integration.shim.shim_host",)
pytestmark = pytest.mark.integration

WORKER = Path(__file__).with_name("plain_worker.py")
INSTANCES = {"local": "Worker-1", "other": "Worker-2"}


def publish(host: ShimHost, log: Path, *placed: Placed) -> None:
    agent = Agent(
        command=(sys.executable, str(WORKER)),
        mode="singleton",
        standbys=len(placed) - 1,
        fence="deadman",
        environment={"WORK_LOG": str(log)},
        probes=(Probe(type="heartbeat", timeout_s=2.0, hang="keep"),),
    )
    docs = [kv.Change(FLEET + "Worker", AgentDoc("Worker", "test", agent, "v1"), 0)]
    kv.put_docs(host.consul.client, [*docs, kv.Change(PLACEMENT + "Worker", PlacementDoc("Worker", placed), 0)])


def processes(host: ShimHost, of: str = "plain_worker") -> list[int]:
    """Of the worker and its child, or of its dead-man."""
    found = []
    for pid in host.agents():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        if of in command:
            found.append(pid)
    return found


def work(log: Path) -> list[tuple[float, str]]:
    """When each piece was done, and on which host."""
    lines = sorted(line.split() for line in log.read_text().splitlines()) if log.exists() else []
    return [(float(at), host) for at, host, _ in lines]


def turns(log: Path) -> list[str]:
    """Hosts in the order of their work: one that appears twice has worked before and after another."""
    return [host for host, _ in itertools.groupby(host for _, host in work(log))]


def deadline_s(host: ShimHost) -> float:
    """Of the lease that an instance on the host was given last."""
    return LeaseReader(lease_path(host.folder / "runtime", INSTANCES[host.folder.name])).deadline_ns / 1e9


def runs(host: ShimHost) -> bool:
    """Both its processes and its dead-man, and its probe passes."""
    reports: list[dict[str, object]] = []
    with contextlib.suppress(subprocess.CalledProcessError):  # its shim does not answer yet
        reports = json.loads(host.request("GET", "/v1/status"))["instances"]
    well = [r for r in reports if r["host"] == host.folder.name and r["status"] == "passing" and r["pid"]]
    return bool(well) and len(processes(host)) == 2 and len(processes(host, "--guard")) == 1


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def pair(hosts: Pair, log: Path) -> Pair:
    """The holder's host, whose worker runs, and its cold standby's."""
    publish(hosts[0], log, *(Placed(instance, host, "v1") for host, instance in INSTANCES.items()))
    for host in hosts:
        host.start()
    hosts[0].wait(lambda: any(runs(host) for host in hosts))
    return hosts if runs(hosts[0]) else (hosts[1], hosts[0])


def test_a_standby_is_well_and_has_no_process(pair: Pair) -> None:
    holder, standby = pair
    standby.wait(lambda: _of(standby)["status"] == "passing")
    said = _of(standby)
    assert (said["role"], said["pid"], said["detail"]) == ("standby", None, "standby: starts when it holds the lease")
    assert (_of(holder)["role"], processes(standby)) == ("holder", [])
    standby.wait(lambda: [i.host for i in standby.served("Worker")] == [holder.folder.name])


def _of(host: ShimHost) -> dict[str, object]:
    reports = json.loads(host.request("GET", "/v1/status"))["instances"]
    found: dict[str, object] = next(report for report in reports if report["instance"] == INSTANCES[host.folder.name])
    return found


def test_when_the_holder_is_killed_the_standby_starts_after_all_of_it_has_ended(pair: Pair, log: Path) -> None:
    holder, standby = pair
    os.kill(int(str(_of(holder)["pid"])), signal.SIGKILL)  # its child works on, for as long as nobody ends it
    standby.wait(lambda: runs(standby))
    assert turns(log) == [holder.folder.name, standby.folder.name]
    holder.wait(lambda: (_of(holder)["role"], _of(holder)["status"], processes(holder)) == ("standby", "passing", []))


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_worker_whose_shim_is_gone_has_ended_in_time(pair: Pair, log: Path, number: signal.Signals) -> None:
    holder, standby = pair
    assert holder.shim
    holder.shim.send_signal(number)
    standby.wait(lambda: not processes(holder))
    assert work(log)[-1][0] <= deadline_s(holder) + STOP_S
    standby.wait(lambda: not processes(holder, "--guard"))
    if number == signal.SIGSTOP:
        holder.shim.send_signal(signal.SIGCONT)
    else:
        holder.shim.wait()
        holder.start()
    standby.wait(lambda: any(runs(host) for host in pair))
    assert len(turns(log)) <= 2


def test_a_worker_whose_consul_is_gone_has_ended_in_time(pair: Pair, log: Path) -> None:
    holder, standby = pair
    server = next(host.consul for host in pair if host.folder.name == "local")
    server.freeze()
    try:
        standby.wait(lambda: not processes(holder))
        until = max(deadline_s(host) for host in pair)
        assert work(log)[-1][0] <= until + STOP_S or until == 0  # 0: its shim was quicker, and has taken the lease away
    finally:
        server.thaw()
    standby.wait(lambda: any(runs(host) for host in pair))
    assert len(turns(log)) <= 2


def test_a_worker_without_its_dead_man_is_not_left_to_itself(pair: Pair, log: Path) -> None:
    holder, standby = pair
    before = processes(holder)
    os.kill(processes(holder, "--guard")[0], signal.SIGKILL)
    standby.wait(lambda: not set(before) & set(processes(holder)))
    assert "its dead-man is gone" in holder.log.read_text()
    standby.wait(lambda: any(runs(host) for host in pair))
    assert len(turns(log)) == 2


def test_a_worker_whose_host_is_cut_off_starts_elsewhere(hosts: Pair, log: Path) -> None:
    local, other = hosts
    publish(local, log, Placed("Worker-2", "other", "v1"))
    for host in hosts:
        host.start()
    other.wait(lambda: runs(other))
    local.wait(lambda: json.loads(local.request("GET", "/v1/placement"))["placer"] != "")
    other.consul.stop()
    local.wait(lambda: bool(processes(local)), within_s=40.0)
    assert not processes(other)
    local.wait(lambda: turns(log) == ["other", "local"])
    doc, _ = kv.get_doc(local.consul.client, PLACEMENT + "Worker", PlacementDoc)
    assert doc
    assert doc.reason == "Worker-2 moves from other to local: other is lost"
