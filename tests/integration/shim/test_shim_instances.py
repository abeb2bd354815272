"""What the shim does when instances die, hang, are commanded or cannot start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from outrider.fleet.spec import Probe
from outrider.registry import services

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)
NAMES = ("Alpha", "Beta", "Gamma")


def test_all_pass_at_their_version(serving: ShimHost) -> None:
    found = serving.services()
    assert {service.meta["version"] for service in found.values() if service.id.endswith("-1")} == {"v1"}
    assert {f"{name}-1" for name in NAMES} <= found.keys()


def test_a_killed_instance_leaves_lookups_and_comes_back(serving: ShimHost) -> None:
    before = serving.pid("Alpha")
    os.kill(before, signal.SIGKILL)
    serving.wait(lambda: not serving.served("Alpha"))
    serving.wait(lambda: serving.passing("Alpha"))
    report = serving.report("Alpha")
    assert report
    assert report.restarts == 1
    assert report.pid != before


def test_one_that_is_placed_again_while_its_process_ends_runs_again(host: ShimHost) -> None:
    program, *words = host.small.command or ()
    deaf = (program, *words[:-1], f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{words[-1]}")
    host.publish({"Alpha": msgspec.structs.replace(host.small, command=deaf, stop_timeout_s=1.5)})
    host.start()
    host.wait(lambda: host.passing("Alpha"))
    before, placement = host.pid("Alpha"), host.docs["Alpha"]
    host.unplace("Alpha")
    host.wait(lambda: not host.served("Alpha"))
    host.docs["Alpha"] = placement
    host.write()
    host.wait(lambda: host.passing("Alpha"))
    assert host.pid("Alpha") != before


def kept_when_it_hangs(host: ShimHost, name: str) -> None:
    """Publish that a hang of the agent is to be sat out, and wait until it passes like that."""
    patient = msgspec.structs.replace(host.small, probes=(Probe(hang="keep"),))
    host.publish({name: patient}, version="v2")
    host.wait(lambda: (report := host.report(name)) and report.version == "v2" and host.passing(name))


def test_a_hanging_instance_is_suspected_until_it_answers_again(serving: ShimHost) -> None:
    kept_when_it_hangs(serving, "Beta")
    pid = serving.pid("Beta")
    os.kill(pid, signal.SIGSTOP)
    try:
        serving.wait(lambda: serving.registered()["Beta-1"][0] == "critical")
        assert serving.registered()["Beta-1"][1].startswith("probe:")
    finally:
        os.kill(pid, signal.SIGCONT)
    serving.wait(lambda: serving.passing("Beta"))
    assert serving.pid("Beta") == pid


def test_every_host_learns_that_a_suspected_instance_is_gone(serving: ShimHost) -> None:
    """The status stays critical, so the Consul agent alone would pass the new output on only after minutes."""
    kept_when_it_hangs(serving, "Beta")
    pid = serving.pid("Beta")
    os.kill(pid, signal.SIGSTOP)
    try:
        serving.wait(lambda: serving.in_catalog("Beta-1").startswith("probe:"))
        serving.request("POST", "/v1/agents/Beta/stop")
        serving.wait(lambda: serving.in_catalog("Beta-1").startswith("stopped:"))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_stop_start_and_restart_by_command(serving: ShimHost) -> None:
    first = serving.pid("Alpha")
    serving.request("POST", "/v1/agents/Alpha/stop")
    serving.wait(lambda: serving.registered()["Alpha-1"] == ("critical", "stopped: by request"))
    serving.wait(lambda: not Path(f"/proc/{first}").exists())
    serving.request("POST", "/v1/agents/Alpha-1/start")
    serving.wait(lambda: serving.passing("Alpha"))
    second = serving.pid("Alpha")
    serving.request("POST", "/v1/agents/Alpha/restart")
    serving.wait(lambda: (report := serving.report("Alpha")) and report.pid not in (None, second))
    serving.wait(lambda: serving.passing(*NAMES))


def test_what_is_placed_no_more_is_stopped_and_deregistered(serving: ShimHost) -> None:
    pid, state = serving.pid("Gamma"), serving.folder / "state"
    assert list(state.rglob("Gamma-1*"))
    serving.unplace("Gamma")
    serving.wait(lambda: "Gamma-1" not in serving.services() and not Path(f"/proc/{pid}").exists())
    serving.wait(lambda: not list(state.rglob("Gamma-1*")))
    assert serving.passing("Alpha", "Beta")


def test_an_instance_that_cannot_start_says_why_while_others_run(host: ShimHost) -> None:
    host.configure(free_ports=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        small = host.small
        secret = msgspec.structs.replace(small, secrets={"KEY": "/nonexistent/key"})
        blocked = msgspec.structs.replace(small, ports={"main": port})
        host.publish({"Alpha": small, "Beta": secret, "Gamma": blocked})
        host.start()
        host.wait(lambda: host.passing("Alpha"))
        host.wait(lambda: "/nonexistent/key" in host.registered().get("Beta-1", ("", ""))[1])
        reason = f"port {port} (main) is taken by"
        host.wait(lambda: reason in host.registered().get("Gamma-1", ("", ""))[1])
        assert {host.registered()[f"{name}-1"][0] for name in ("Beta", "Gamma")} == {"critical"}


def test_a_failure_that_reaches_the_catalog_after_the_recovery_is_taken_back(serving: ShimHost) -> None:
    """What an escalation does that was on its way through an election while the instance came back."""
    node = msgspec.json.decode(serving.consul.client.get("/v1/agent/self").body)["Config"]["NodeName"]
    services.escalate(serving.consul.client, node, "outrider:Alpha-1", "Alpha-1", "critical", "died: long ago")
    assert serving.in_catalog("Alpha-1") == "died: long ago"
    serving.wait(lambda: not serving.in_catalog("Alpha-1"), within_s=10.0)
    assert serving.passing("Alpha")
