"""What `make demo` shows once the playbook is through: the fleet, a lookup, an agent killed and back."""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

from outrider.cli.output import console, instances_table, summary_line, table
from outrider.cli.shim_client import ShimClient
from outrider.discovery.api import lookup
from outrider.errors import OutriderError, ShimUnreachable
from outrider.fleet.load import load_fleet
from outrider.host.config import load_config
from outrider.host.reports import StatusReport
from outrider.registry.address import Address
from outrider.registry.client import connect

WAIT_S = 90.0
LOOKUPS = 10_000
FLEET_FILE = Path(__file__).resolve().parent.parent / "inventories/reference/fleet.yml"


def main() -> int:
    """Show everything; exit 1 if the fleet is not whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--began", type=float, default=time.time(), help="Unix seconds at which the demo began")
    parser.add_argument("--all", action="store_true", help="every instance, not only a line for each tier")
    args = parser.parse_args()
    runtime = Path(os.environ.get("OUTRIDER_RUNTIME", ".outrider/run"))
    os.environ["OUTRIDER_RUNTIME"] = str(runtime)
    client = ShimClient(runtime)
    report = wait_until_whole(client)
    out = console()
    out.print(summary_line(report))
    ill = [item for item in report.instances if item.status != "passing"]
    out.print(instances_table(report.instances if args.all or ill else ()) if args.all or ill else tiers(report))
    if ill:
        return 1
    show_lookup(runtime)
    show_kill(client, report)
    consul = load_config(config_of(runtime)).consul
    out.print(f"\nConsul UI       http://{consul.host}:{consul.port}/ui")
    out.print(f"metrics         http://127.0.0.1:{load_config(config_of(runtime)).http_port}/metrics")
    out.print("the fleet       make cli ARGS='status'")
    out.print("one agent       make cli ARGS='lookup MemoryClient'")
    out.print("end it all      make down")
    out.print(f"\n77 agents healthy, everything shown after {time.time() - args.began:.0f} s")
    return 0


def config_of(runtime: Path) -> Path:
    """The configuration file of the shim that serves `runtime`."""
    return runtime.parent / "etc" / "outriderd.toml"


def wait_until_whole(client: ShimClient) -> StatusReport:
    """Wait until every instance passes, or the time is over; say how far it is."""
    deadline = time.monotonic() + WAIT_S
    shown = ""
    while True:
        try:
            report = client.get("/v1/status", StatusReport)
            line = f"{report.summary.passing} of {report.summary.instances} instances pass"
            whole = report.summary.passing == report.summary.instances > 0
        except ShimUnreachable:
            line, whole = "waiting for the shim", False
        if line != shown and sys.stdout.isatty():
            print(f"\r{line}   ", end="", flush=True)
        shown = line
        if whole or time.monotonic() > deadline:
            print("\r" if sys.stdout.isatty() else "", end="")
            return client.get("/v1/status", StatusReport)
        time.sleep(0.2)


def tiers(report: StatusReport) -> object:
    """A line for each group of the fleet file."""
    fleet = load_fleet(FLEET_FILE)
    tier = {name: agent.tier or "-" for name, agent in fleet.agents.items()}
    count = Counter(tier.get(item.agent, "-") for item in report.instances)
    well = Counter(tier.get(item.agent, "-") for item in report.instances if item.status == "passing")
    models = Counter(tier[name] for name, agent in fleet.agents.items() if agent.model)
    rows = [[name, f"{well[name]}/{total}", str(models[name] or "")] for name, total in count.items()]
    return table(["tier", "passing", "real models"], rows)


def show_lookup(runtime: Path) -> None:
    """A lookup from the catalogue beside the same question to Consul over HTTP."""
    nanoseconds = []
    for _ in range(LOOKUPS):
        began = time.perf_counter_ns()
        lookup("MemoryClient")
        nanoseconds.append(time.perf_counter_ns() - began)
    cuts = statistics.quantiles(nanoseconds, n=100)
    consul = load_config(config_of(runtime)).consul
    client = connect(Address(host=consul.host, port=consul.port))
    times = []
    for _ in range(100):
        began = time.perf_counter_ns()
        client.health.service("MemoryClient")
        times.append(time.perf_counter_ns() - began)
    print(
        f"\nlookup          p50 {cuts[49] / 1000:.1f} us, p99 {cuts[98] / 1000:.1f} us from the catalogue; "
        f"{statistics.median(times) / 1000:.0f} us from Consul by python-consul2"
    )


def show_kill(client: ShimClient, report: StatusReport) -> None:
    """Kill one agent and time its way out of the catalogue and back."""
    victim = next(item for item in report.instances if item.agent == "MemoryClient")
    if victim.pid is None:
        raise OutriderError(f"{victim.instance} has no process on this host")
    began = time.perf_counter()
    os.kill(victim.pid, signal.SIGKILL)
    while lookup(victim.agent).instances:
        pass
    absent_ms = (time.perf_counter() - began) * 1000
    while not lookup(victim.agent).instances:
        time.sleep(0.001)
    back_ms = (time.perf_counter() - began) * 1000
    gone = f"out of every lookup after {absent_ms:.1f} ms"
    print(f"kill -9         {victim.agent}: {gone}, served again after {back_ms:.0f} ms")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OutriderError as problem:
        print(problem, file=sys.stderr)
        sys.exit(problem.exit_code)
