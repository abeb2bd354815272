"""What the shim does with instances that hang, crash on and on, or end at the wrong moment.

| what happens                               | noticed by      | what is done                                      |
| ------------------------------------------ | --------------- | ------------------------------------------------- |
| killed, exits                              | pidfd           | out of routing, started again at once (elsewhere) |
| stopped (SIGSTOP), deadlocked: no answer   | two silences    | out of routing, SIGKILL, started again            |
| answers badly (status 500)                 | two bad answers | out of routing until it answers well              |
| no answer, `hang: keep`                    | two silences    | out of routing until it answers (elsewhere)       |
| many of a host silent at once              | Care            | out of routing, nobody is killed                  |
| hangs while it starts                      | start_timeout_s | SIGTERM, SIGKILL, started again                   |
| hangs since before the shim was started    | silences, age   | SIGKILL, started again                            |
| stopped (SIGSTOP) or deaf when told to end | stop_timeout_s  | SIGKILL, it stays stopped                         |
| dies while it is being stopped             | pidfd           | it stays stopped                                  |
| fails park_after times in a row            | CrashLoop       | parked, also over a restart of the shim           |
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from msgspec.structs import replace

from outrider.fleet.spec import Agent, Need, Probe, Restart

if TYPE_CHECKING:
    from integration.shim.shim_host import ShimHost

pytest_plugins = ("integration.shim.shim_host",)
NAMES = ("Alpha", "Beta", "Gamma")
# An agent whose health is as it was told last: /ok, /500 or /mute; /die and /deaf say what SIGTERM does to it.
MOODY = """
import http.server, os, signal, threading
mood = "/ok"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global mood
        if self.path == "/deaf": signals.append(signal.SIG_IGN)
        elif self.path == "/die": signals.append(lambda *_: os._exit(7))
        elif self.path != "/health": mood = self.path
        elif mood == "/mute": threading.Event().wait()
        self.send_response(500 if self.path == "/health" and mood == "/500" else 200)
        self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *args): pass
class Signals(list):
    def append(self, handler): wanted.put(handler)
import queue
wanted = queue.Queue()
signals = Signals()
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["OUTRIDER_PORT"])), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
while True: signal.signal(signal.SIGTERM, wanted.get())
"""


def agent(code: str, **changes: object) -> Agent:
    """A small agent that is asked over HTTP."""
    made = Agent(command=(sys.executable, "-c", code), ports={"main": "auto"}, probes=(Probe(),), stop_timeout_s=1.0)
    return replace(made, **changes)


@pytest.fixture
def moody(host: ShimHost) -> ShimHost:
    """A host whose three agents pass and may be told to behave badly."""
    host.publish(dict.fromkeys(NAMES, agent(MOODY)))
    host.start()
    host.wait(lambda: host.passing(*NAMES))
    return host


def tell(host: ShimHost, name: str, mood: str) -> None:
    report = host.report(name)
    assert report
    with contextlib.suppress(URLError, TimeoutError):
        urlopen(f"http://127.0.0.1:{report.port}{mood}", timeout=2).close()


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def replaced(host: ShimHost, name: str, pid: int) -> bool:
    report = host.report(name)
    return report is not None and report.pid not in (None, pid) and host.passing(name)


@pytest.mark.parametrize("how", ["stopped", "deadlocked"])
def test_one_that_hangs_leaves_routing_is_killed_and_replaced(moody: ShimHost, how: str) -> None:
    pid = moody.pid("Alpha")
    began = time.monotonic()
    os.kill(pid, signal.SIGSTOP) if how == "stopped" else tell(moody, "Alpha", "/mute")
    moody.wait(lambda: gone(pid))
    took_s = time.monotonic() - began
    moody.wait(lambda: replaced(moody, "Alpha", pid))
    print(f"{how}: killed after {took_s:.2f} s, replaced after {time.monotonic() - began:.2f} s")
    assert "hangs and is killed: GET http://" in moody.log.read_text()
    assert all((report := moody.report(name)) and not report.restarts for name in ("Beta", "Gamma"))


def test_one_that_answers_badly_leaves_routing_and_lives(moody: ShimHost) -> None:
    pid = moody.pid("Alpha")
    tell(moody, "Alpha", "/500")
    moody.wait(lambda: moody.registered()["Alpha-1"] == ("critical", f"probe: {asked(moody, 'Alpha')}: status 500"))
    time.sleep(2.0)  # as long as two hangs take
    assert moody.pid("Alpha") == pid
    tell(moody, "Alpha", "/ok")
    moody.wait(lambda: moody.passing("Alpha"))
    assert moody.pid("Alpha") == pid


def asked(host: ShimHost, name: str) -> str:
    report = host.report(name)
    assert report
    return f"GET http://127.0.0.1:{report.port}/health"


def test_when_many_are_silent_at_once_none_is_killed(moody: ShimHost) -> None:
    pids = {name: moody.pid(name) for name in NAMES}
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
    moody.wait(lambda: all(moody.registered()[f"{name}-1"][0] == "critical" for name in NAMES))
    time.sleep(2.0)  # each is asked, and silent, at least twice more
    for pid in pids.values():
        os.kill(pid, signal.SIGCONT)
    moody.wait(lambda: moody.passing(*NAMES))
    assert {name: moody.pid(name) for name in NAMES} == pids
    assert moody.log.read_text().count("3 of 3 instances are silent at once") == 1


def test_one_that_hangs_while_it_starts_is_ended_in_time(host: ShimHost) -> None:
    """Also while documents of others change, which wakes every instance."""
    host.publish({"Alpha": agent("import time; time.sleep(300)", start_timeout_s=1.0), "Beta": agent(MOODY)})
    host.start()
    for version in range(20):
        host.publish({"Beta": agent(MOODY)}, version=f"v{version}")
        if (report := host.report("Alpha")) and report.restarts:
            break
        time.sleep(0.2)
    host.wait(lambda: (report := host.report("Alpha")) and report.restarts and "not ready within 1 s" in report.detail)


def test_one_that_hung_before_the_shim_came_is_replaced_too(moody: ShimHost) -> None:
    moody.publish({"Alpha": agent(MOODY, start_timeout_s=3.0)}, version="v2")
    moody.wait(lambda: (report := moody.report("Alpha")) and report.version == "v2" and moody.passing("Alpha"))
    pid = moody.pid("Alpha")
    moody.end(signal.SIGKILL)
    os.kill(pid, signal.SIGSTOP)
    moody.start()
    moody.wait(lambda: replaced(moody, "Alpha", pid))


@pytest.mark.parametrize("how", ["stopped", "deaf", "dies"])
def test_one_that_ends_badly_when_told_to_end_stays_stopped(moody: ShimHost, how: str) -> None:
    pid = moody.pid("Alpha")
    if how == "stopped":
        os.kill(pid, signal.SIGSTOP)
    else:
        tell(moody, "Alpha", "/deaf" if how == "deaf" else "/die")
    moody.request("POST", "/v1/agents/Alpha/stop")
    moody.wait(lambda: gone(pid), within_s=5)
    moody.wait(lambda: moody.registered()["Alpha-1"] == ("critical", "stopped: by request"))
    report = moody.report("Alpha")
    assert report
    assert (report.status, report.restarts, report.pid) == ("stopped", 0, None)


def test_one_that_always_crashes_is_parked_until_told(host: ShimHost) -> None:
    crashing = agent("raise SystemExit(3)", restart=Restart(backoff_s=0.01, park_after=4))
    host.publish({"Alpha": crashing, "Beta": agent(MOODY)})
    host.start()
    host.wait(lambda: is_parked(host))
    report = host.report("Alpha")
    assert report
    assert report.detail.startswith("parked: failed 4 times in a row within ")
    assert report.detail.endswith("last: exit status 3; `outrider restart Alpha` or a new version revives it")
    assert report.restarts == 3
    host.wait(lambda: host.registered()["Alpha-1"] == ("critical", report.detail))

    host.end(signal.SIGKILL)
    host.start()
    host.wait(lambda: is_parked(host) and host.passing("Beta"))
    host.publish({"Beta": agent(MOODY)}, version="v2")  # news of others revives nobody
    host.wait(lambda: (beta := host.report("Beta")) and beta.version == "v2" and host.passing("Beta"))
    again = host.report("Alpha")
    assert again
    assert (again.status, again.detail, again.restarts) == ("parked", report.detail, 0)

    host.request("POST", "/v1/agents/Alpha/restart")
    host.wait(lambda: (now := host.report("Alpha")) and now.restarts == 3 and now.status == "parked")
    host.publish({"Alpha": agent(MOODY)}, version="v2")
    host.wait(lambda: host.passing("Alpha"))


def is_parked(host: ShimHost) -> bool:
    report = host.report("Alpha")
    return report is not None and report.status == "parked"


def test_who_lacks_a_need_warns_and_serves_until_it_is_back(host: ShimHost) -> None:
    """Gamma needs Beta, Beta needs Alpha: Beta warns, and Gamma does not, for Beta serves."""
    host.publish(
        {
            "Alpha": agent(MOODY, probes=(Probe(hang="keep"),)),
            "Beta": agent(MOODY, needs=(Need("Alpha", fallback="a default"),)),
            "Gamma": agent(MOODY, needs=(Need("Beta"), Need("Alpha", required=False))),
        }
    )
    host.start()
    host.wait(lambda: host.passing(*NAMES))
    pid = host.pid("Beta")
    host.request("POST", "/v1/agents/Alpha/stop")
    lacks = "needs Alpha: nobody serves it (fallback: a default)"
    host.wait(lambda: host.registered()["Beta-1"] == ("warning", lacks))
    report = host.report("Beta")
    assert report
    assert (report.status, report.detail, report.pid) == ("warning", lacks, pid)
    assert [found.status for found in host.served("Beta")] == ["warning"]
    assert host.passing("Gamma")

    tell(host, "Beta", "/500")  # what its probe says is worse, and wins
    host.wait(lambda: host.registered()["Beta-1"][1].endswith("status 500"))
    tell(host, "Beta", "/ok")
    host.wait(lambda: host.registered()["Beta-1"] == ("warning", lacks))

    host.request("POST", "/v1/agents/Alpha/start")
    host.wait(lambda: host.passing(*NAMES))
    assert host.pid("Beta") == pid
