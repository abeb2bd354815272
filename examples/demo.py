"""What `make demo` shows once the playbook is through: the fleet, a lookup, an agent killed and back."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import consul

from outrider.calls import Client
from outrider.cli.main import INTERRUPTED, print_error
from outrider.cli.output import Progress, console, count, table
from outrider.cli.status import WELL, instances_table, problems_table, summary_line
from outrider.cli.where import config_of, default_runtime
from outrider.discovery.api import lookup
from outrider.errors import HostError, OutriderError, ShimUnreachable
from outrider.fleet.load import load_fleet
from outrider.host.config import Config
from outrider.host.reports import InstanceReport, StatusReport
from outrider.host.shim_client import ShimClient

WAIT_S = 90.0
BACK_S = 30.0
LOOKUPS = 10_000
QUERIES = 100
SHOWN = "MemoryClient"
FLEET_FILE = Path(__file__).resolve().parent.parent / "inventories/reference/fleet.yml"


def main() -> int:
    """Show everything; exit code 1 if the fleet is not whole."""
    args = arguments()
    runtime = default_runtime()
    config = config_of(runtime)
    if config is None:
        raise HostError(f"no shim is set up for {runtime}", hint="`make demo` does that, and then runs this")
    client = ShimClient(runtime)
    report = wait_until_whole(client)
    show_fleet(report, everything=args.all)
    if report.summary.passing < report.summary.instances:
        print("\nnot every agent passes: `make cli ARGS='doctor'` tells why, `make demo` goes on from here")
        return 1
    print()
    show_lookup(runtime, config)
    show_calls(runtime, report)
    show_kill(client, runtime, report)
    show_next(config)
    if args.began:
        agents = f"{count(report.summary.agents, 'agent')}, {count(report.summary.instances, 'instance')}"
        print(f"\n{agents} passing, and all of this shown, {time.time() - args.began:.0f} s after `make demo`")
    return 0


def arguments() -> argparse.Namespace:
    """The command line. The demo's start may come from $OUTRIDER_DEMO_STARTED too."""
    parser = argparse.ArgumentParser(description=__doc__)
    began = os.environ.get("OUTRIDER_DEMO_STARTED")
    parser.add_argument("--began", type=float, default=began, help="Unix seconds at which the demo began")
    parser.add_argument("--all", action="store_true", help="every instance, not only a line for each tier")
    return parser.parse_args()


def wait_until_whole(client: ShimClient) -> StatusReport:
    """Wait until every instance passes, at most 90 s. Raises ShimUnreachable if there is no shim all that time."""
    began = time.monotonic()
    progress = Progress()
    while True:
        late = time.monotonic() - began > WAIT_S
        try:
            report = client.get("/v1/status", StatusReport)
        except ShimUnreachable:
            if late:
                raise
            progress.show("waiting for the shim")
        else:
            if late or report.summary.passing == report.summary.instances > 0:
                progress.clear()
                return report
            progress.show(f"{report.summary.passing} of {report.summary.instances} instances pass")
        time.sleep(0.1)


def show_fleet(report: StatusReport, *, everything: bool) -> None:
    """A line for each tier and host, or for each instance; what does not pass, with its reason."""
    out = console()
    out.print()
    out.print(summary_line(report))
    out.print()
    if problems := [item for item in report.instances if item.status not in WELL]:
        out.print(problems_table(problems))
        out.print()
    out.print(instances_table(report.instances) if everything else tiers(report))


def tiers(report: StatusReport) -> object:
    """How many instances of each tier pass, on each host."""
    agents = load_fleet(FLEET_FILE).agents
    groups: dict[tuple[str, str], list[InstanceReport]] = {}
    for item in report.instances:
        tier = agents[item.agent].tier if item.agent in agents else "-"
        groups.setdefault((item.host, tier), []).append(item)
    rows = []
    for (host, tier), items in sorted(groups.items()):
        states = Counter(item.status for item in items)
        models = sum(bool(agents[item.agent].model) for item in items if item.agent in agents)
        rows.append([host, tier, f"{states['passing']}/{len(items)}", f"{models} with a real model" if models else ""])
    return table(["host", "tier", "passing", ""], rows)


def show_lookup(runtime: Path, config: Config) -> None:
    """A lookup from the catalogue, beside the same question asked of Consul by python-consul2 as it comes."""
    folder = str(runtime)
    asking = consul.Consul(host=config.consul.host, port=config.consul.port)
    ours = measured(lambda: lookup(SHOWN, runtime=folder), LOOKUPS)
    theirs = measured(lambda: asking.health.service(SHOWN, passing=True), QUERIES)
    print(f"lookup     from the catalogue      p50 {ours[49]:6.1f} us   p99 {ours[98]:6.1f} us   ({LOOKUPS:,} of them)")
    print(
        f"           python-consul2, HTTP    p50 {theirs[49]:6.0f} us   p99 {theirs[98]:6.0f} us   ({QUERIES} of them)"
    )


def show_calls(runtime: Path, report: StatusReport) -> None:
    """Every agent asks what it needs, which asks what that needs: each need of the fleet is a call."""
    # One with two instances is asked twice at one time: they share the calls, and need different agents.
    asked = sorted(item.agent for item in report.instances)
    agents = set(asked)
    began = time.perf_counter()
    trees = asyncio.run(_chains(Client(runtime=runtime), asked))
    took_s = time.perf_counter() - began
    needs = {(tree["agent"], need["agent"]) for tree in trees for need in tree["needs"]}
    calls, failed = sum(tree["answered"] for tree in trees), sum(tree["failed"] for tree in trees)
    what = f"{count(len(needs), 'need')} of {count(len(agents), 'agent')}"
    print(f"calls      along all {what}: {calls} answered, {failed} failed, {took_s:.1f} s")


async def _chains(client: Client, agents: list[str]) -> list[dict[str, Any]]:
    turns = asyncio.Semaphore(8)

    async def ask(agent: str) -> dict[str, Any]:
        async with turns:
            tree: dict[str, Any] = await client.acall(agent, "chain", {"deadline_ms": 20_000}, timeout=21.0)
            return tree

    return await asyncio.gather(*map(ask, agents))


def measured(call: Callable[[], object], times: int) -> list[float]:
    """The 99 percentiles of a call's duration, in microseconds. The first call, which opens things, is not counted."""
    call()
    took = []
    for _ in range(times):
        began = time.perf_counter_ns()
        call()
        took.append((time.perf_counter_ns() - began) / 1000)
    return statistics.quantiles(took, n=100)


def show_kill(client: ShimClient, runtime: Path, report: StatusReport) -> None:
    """Kill one agent; time until no lookup names it, until it is looked up again, and until the shim says it passes."""
    victim = next(item for item in report.instances if item.agent == SHOWN)
    if victim.pid is None:
        raise HostError(f"{victim.instance} has no process on this host")
    folder = str(runtime)
    began = time.perf_counter()
    os.kill(victim.pid, signal.SIGKILL)
    gone_ms = elapsed_ms(began, lambda: not lookup(SHOWN, runtime=folder).instances)
    back_ms = elapsed_ms(began, lambda: any(i.status == "passing" for i in lookup(SHOWN, runtime=folder).instances))
    now = next(i for i in client.get("/v1/status", StatusReport).instances if i.instance == victim.instance)
    print(f"kill -9    {victim.instance}, pid {victim.pid}: out of every lookup after {gone_ms:.1f} ms,")
    print(f"           passing again after {back_ms:.0f} ms as pid {now.pid}")


def elapsed_ms(began: float, reached: Callable[[], bool]) -> float:
    """Milliseconds since `began` at which `reached` is first true. Raises OutriderError if it takes too long.

    Asks without a pause: a lookup takes a microsecond, and this is what is measured.
    """
    while not reached():
        if time.perf_counter() - began > BACK_S:
            raise OutriderError(f"{SHOWN} is not as it should be after {BACK_S:.0f} s", hint="`outrider doctor` looks")
    return (time.perf_counter() - began) * 1000


def show_next(config: Config) -> None:
    """Where to look and what to try."""
    at = config.consul
    host = f"[{config.http_host}]" if ":" in config.http_host else config.http_host
    lines = {
        "Consul UI": f"{at.scheme}://{at.host}:{at.port}/ui",
        "Prometheus metrics": f"http://{host}:{config.http_port}/metrics",
        "the whole fleet": "make cli ARGS='status'",
        "one agent": f"make cli ARGS='agents {SHOWN}'",
        "what it wrote": f"make cli ARGS='logs {SHOWN} -f'",
        "what is wrong": "make cli ARGS='doctor'",
        "end it all": "make down",
    }
    print()
    for what, where in lines.items():
        print(f"{what:<20}{where}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OutriderError as problem:
        print_error(problem, as_json=False)
        sys.exit(problem.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
