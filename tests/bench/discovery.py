"""Discovery measured on the running demo and on lab hosts: lookups beside Consul's own, deaths, the shim's cost."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import consul as python_consul2
import dns.message
import dns.query
import psutil
import urllib3
from harness import ROOT, Row, row, write
from lab_rows import lab_rows

from outrider.discovery.catalogue import Catalogue, CatalogueWriter
from outrider.discovery.records import Entry, Instance
from outrider.errors import OutriderError, ShimUnreachable
from outrider.host.reports import StatusReport
from outrider.host.shim_client import ShimClient

RUNTIME = ROOT / ".outrider/run"
AGENT = "MemoryClient"
VICTIMS = ("NLUAgent", "ChitchatAgent", "GoalManager", "EmotionEngine", "TutorAgent")


def microseconds(call: Callable[[], object], count: int) -> list[float]:
    """How long each of `count` calls takes."""
    samples = []
    for _ in range(count):
        began = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - began) / 1000)
    return samples


def lookups(ports: dict[str, int], count: int) -> list[Row]:
    """The same question asked four ways in one run."""
    ours = Catalogue(RUNTIME)
    standard = python_consul2.Consul(port=ports["consul_http"])
    pool = urllib3.HTTPConnectionPool("127.0.0.1", ports["consul_http"])
    question = dns.message.make_query(f"{AGENT}.service.consul", "SRV")
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "outrider": (lambda: ours.lookup(AGENT), count * 100),
        "python-consul2": (lambda: standard.health.service(AGENT), count),
        "consul ?cached": (lambda: json.loads(pool.request("GET", f"/v1/health/service/{AGENT}?cached").data), count),
        "consul DNS": (lambda: dns.query.udp(question, "127.0.0.1", 2, ports["consul_dns"]), count),
    }
    return [row("lookup", name, "us", microseconds(call, number)) for name, (call, number) in ways.items()]


READER = """
import sys; from pathlib import Path; from outrider.discovery.reader import Catalogue; import psutil
made = Catalogue(Path(sys.argv[1])); before = psutil.Process().memory_full_info().pss
for number in range(100): made.lookup(f"Agent{number}")
after = psutil.Process().memory_full_info().pss; print(after - before, after)
"""


def at_scale(count: int) -> list[Row]:
    """A catalogue of 10,000 and of 50,000 instances: the lookup stays as it is, the file grows with them."""
    return _at_size(10_000, count) + _at_size(50_000, count)


def _at_size(size: int, count: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        writer = CatalogueWriter(Path(folder))
        names = [f"Agent{number}" for number in range(size)]
        writer.publish({name: Entry(name, (_instance(name),)) for name in names})
        reader = Catalogue(Path(folder))
        turn = iter(names * (1 + count * 100 // size))
        samples = microseconds(lambda: reader.lookup(next(turn)), count * 100)
        file_bytes = (Path(folder) / "catalogue.snap").stat().st_size
        said = subprocess.run([sys.executable, "-c", READER, folder], capture_output=True, text=True, check=True)
        writer.close()
    more, whole = said.stdout.split()
    return [
        row(f"lookup, {size:,} instances", "outrider", "us", samples),
        row(f"catalogue file, {size:,} instances", "outrider", "bytes", [file_bytes]),
        row(f"reader's memory for 100 agents of {size:,}", "outrider", "bytes", [float(more)]),
        row(f"PSS of that reader's process, {size:,} instances", "outrider", "bytes", [float(whole)]),
    ]


def _instance(name: str) -> Instance:
    return Instance(name, f"{name}-1", "h", "10.0.0.1", 7000, {"main": 7000})


def deaths(client: ShimClient, count: int) -> list[Row]:
    """kill -9 an agent; until it is in no lookup, and until it is served again."""
    reader = Catalogue(RUNTIME)
    absent, back = [], []
    for number in range(count):
        name = VICTIMS[number % len(VICTIMS)]
        until(lambda name=name: bool(reader.lookup(name).instances))
        report = client.get("/v1/status", StatusReport)
        pid = next(item.pid for item in report.instances if item.agent == name)
        assert pid is not None
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        until(lambda name=name: not reader.lookup(name).instances, pause_s=0)
        absent.append((time.perf_counter() - began) * 1000)
        until(lambda name=name: bool(reader.lookup(name).instances))
        back.append((time.perf_counter() - began) * 1000)
        if number % len(VICTIMS) == len(VICTIMS) - 1:
            # Longer than what counts as steady, so that the next round restarts at once as the first did.
            time.sleep(11)
    return [row("kill -9 to absence", "outrider", "ms", absent), row("kill -9 to served again", "outrider", "ms", back)]


def until(condition: Callable[[], bool], timeout_s: float = 60.0, pause_s: float = 0.002) -> None:
    """Wait for a condition, looking each `pause_s`; raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        if pause_s:
            time.sleep(pause_s)


def frozen(seconds: float) -> list[Row]:
    """Lookups while the demo's Consul stands still: none may fail, and each says how old it is."""
    reader = Catalogue(RUNTIME)
    consul = next(p for p in psutil.process_iter(["cmdline"]) if _is_demo_consul(p.info["cmdline"] or []))
    failed, ages = 0, []
    consul.suspend()
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                ages.append(reader.lookup(AGENT).age_s)
            except OutriderError:
                failed += 1
            time.sleep(0.001)
    finally:
        consul.resume()
    case = "lookup, Consul frozen"
    return [row(f"{case}: failed", "outrider", "count", [failed]), row(f"{case}: age said", "outrider", "s", ages)]


def _is_demo_consul(words: list[str]) -> bool:
    return "agent" in words and any(str(ROOT / ".outrider") in word for word in words) and "consul" in words[0]


def cost(client: ShimClient, ports: dict[str, int], seconds: float) -> list[Row]:
    """What the shim takes of one core and of memory with the whole demo, and how often Consul must write."""
    metrics = urllib3.request("GET", f"http://127.0.0.1:{ports['outrider_http']}/metrics").data.decode()
    assert "outrider_instance_up" in metrics
    shim = next(p for p in psutil.process_iter(["cmdline"]) if _is_demo_shim(p.info["cmdline"] or []))
    before, written = sum(shim.cpu_times()[:2]), raft_index(ports)
    time.sleep(seconds)
    share = (sum(shim.cpu_times()[:2]) - before) / seconds
    writes = (raft_index(ports) - written) * 60 / seconds
    agents = client.get("/v1/status", StatusReport).summary.instances
    return [
        row(f"shim, share of one core, {agents} agents", "outrider", "ratio", [share]),
        row(f"shim, PSS, {agents} agents", "outrider", "bytes", [shim.memory_full_info().pss]),
        row("raft writes a minute at rest", "outrider", "count", [writes]),
    ]


def _is_demo_shim(words: list[str]) -> bool:
    return any("outrider" in word for word in words[:4]) and str(ROOT / ".outrider/etc/outriderd.toml") in words


def raft_index(ports: dict[str, int]) -> int:
    """Index of the last entry in Consul's raft log."""
    reply = urllib3.request("GET", f"http://127.0.0.1:{ports['consul_http']}/v1/agent/self")
    return int(json.loads(reply.data)["Stats"]["raft"]["last_log_index"])


def main() -> int:
    """Run the cases asked for; the demo is started if it does not run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples and short windows")
    parser.add_argument("--only", default="cost,lookups,scale,deaths,frozen,lab", help="cases, with commas between")
    args = parser.parse_args()
    client, ports = ShimClient(RUNTIME), {}
    if args.only != "lab":
        try:
            client.get("/v1/status", StatusReport)
        except ShimUnreachable:
            subprocess.run(["make", "demo"], cwd=ROOT, check=True)
        ports = json.loads((ROOT / ".outrider/state/ports.json").read_text())
    count = 200 if args.quick else 2000
    cases: dict[str, Callable[[], list[Row]]] = {
        "cost": lambda: cost(client, ports, 10 if args.quick else 60),
        "lookups": lambda: lookups(ports, count),
        "scale": lambda: at_scale(count),
        "deaths": lambda: deaths(client, 10 if args.quick else 50),
        "frozen": lambda: frozen(1 if args.quick else 3),
        "lab": lambda: lab_rows(*((12, 3, 1) if args.quick else (120, 10, 3))),
    }
    rows = [found for name in args.only.split(",") for found in cases[name]()]
    write("discovery", rows)
    failed = sum(found.max for found in rows if found.case.endswith(": failed"))
    if failed:
        print(f"{failed:.0f} lookups failed while Consul stood still", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
