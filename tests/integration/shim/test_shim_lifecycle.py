"""Shims that end and Consuls that go: instances run on, lookups go on, nothing is registered twice."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

from integration.shim.shim_host import SMALL
from outrider.discovery.reader import Catalogue

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)
NAMES = ("Alpha", "Beta", "Gamma")


def raft_index(host: ShimHost) -> int:
    stats = host.consul.client.get("/v1/agent/self").body
    text = stats.decode() if isinstance(stats, bytes) else str(stats)
    return int(text.split('"last_log_index":"')[1].split('"')[0])


def pids(host: ShimHost) -> list[int | None]:
    return [report.pid if (report := host.report(name)) else None for name in NAMES]


def test_a_new_shim_takes_over_what_a_killed_one_left(serving: ShimHost) -> None:
    catalogue = Catalogue(serving.folder / "runtime")
    before, generation, index = pids(serving), catalogue.lookup("Alpha").generation, raft_index(serving)
    serving.end(signal.SIGKILL)
    serving.start()
    serving.wait(lambda: pids(serving) == before and serving.passing(*NAMES))
    serving.wait(lambda: catalogue.lookup("Alpha").age_s < 0.9)
    assert catalogue.lookup("Alpha").generation >= generation
    # The node check may expire and pass again meanwhile; three registrations and their checks would be six.
    assert raft_index(serving) - index <= 4


def test_instances_outlive_a_shim_that_is_told_to_end(serving: ShimHost) -> None:
    before = pids(serving)
    serving.end(signal.SIGTERM)
    assert all(Path(f"/proc/{pid}").exists() for pid in before)
    assert {f"{name}-1" for name in NAMES} <= serving.services().keys()


def test_lookups_go_on_without_consul_and_say_their_age(serving: ShimHost) -> None:
    catalogue = Catalogue(serving.folder / "runtime")
    serving.consul.stop()
    serving.wait(lambda: catalogue.lookup("Alpha").age_s > 3)
    assert len(catalogue.lookup("Alpha").instances) == 1
    assert serving.log.read_text().count("instances run on") == 1
    serving.consul.start()
    serving.wait(lambda: catalogue.lookup("Alpha").age_s < 1.5)
    said = serving.log.read_text()  # each once; a Consul that has just started may be lost once more
    assert said.count("answers again") == said.count("instances run on") >= 1


def test_a_wiped_consul_gets_everything_back(host: ShimHost) -> None:
    host.publish(dict.fromkeys(NAMES, SMALL))
    host.start()
    host.wait(lambda: host.passing(*NAMES))
    before = pids(host)
    assert host.shim
    host.shim.send_signal(signal.SIGSTOP)
    host.consul.wipe()
    host.consul.start()
    for n in range(50):  # the first answer that the shim gets is of a higher index than any before
        host.consul.client.put(f"/v1/kv/age/{n}", b"")
    host.shim.send_signal(signal.SIGCONT)
    host.wait(lambda: "Consul lost documents of the fleet" in host.log.read_text())
    assert all(host.served(name) for name in NAMES)
    docs = dict(host.docs)
    del host.docs["Gamma"]  # the documents come back in pieces
    host.write()
    host.wait(lambda: host.passing("Alpha", "Beta"))
    host.docs = docs
    host.write()
    host.wait(lambda: host.passing(*NAMES))
    assert {service.meta["version"] for service in host.services().values() if service.meta.get("agent")} == {"v1"}
    assert pids(host) == before


def test_shutdown_leaves_no_process_and_no_service(serving: ShimHost) -> None:
    serving.request("POST", "/v1/shutdown")
    assert serving.shim
    assert serving.shim.wait(timeout=15) == 0
    assert serving.agents() == []
    assert not [service for service in serving.services() if service.endswith("-1")]
