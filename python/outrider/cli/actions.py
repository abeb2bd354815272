"""Commands that change what runs: start, stop, restart."""

from __future__ import annotations

import argparse
import time

from outrider.cli.output import print_json
from outrider.cli.shim_client import ShimClient
from outrider.errors import EXIT_FAILED, EXIT_USAGE
from outrider.host.reports import ActionReport, InstanceReport, StatusReport

WAIT_S = 60.0


def act(args: argparse.Namespace) -> int:
    """Tell, then wait until it is so."""
    client = ShimClient(args.runtime)
    if args.action == "stop" and args.all:
        client.post("/v1/shutdown", dict, timeout_s=120.0)
        print_json({"stopped": True}) if args.json else print(
            "all instances of this host are stopped, the shim has ended"
        )
        return 0
    if not args.name:
        print(f"outrider {args.action}: which agent or instance?")
        return EXIT_USAGE
    before = {item.instance: item for item in client.get("/v1/status", StatusReport).instances}
    report = client.post(f"/v1/agents/{args.name}/{args.action}", ActionReport)
    done = args.no_wait or _wait(client, report, before, quiet=args.json)
    if args.json:
        print_json(report)
    return 0 if done else EXIT_FAILED


def _wait(client: ShimClient, report: ActionReport, before: dict[str, InstanceReport], quiet: bool) -> bool:
    """Wait until every instance is as asked. False after a minute, naming what is not."""
    left = set(report.instances)
    began = time.monotonic()
    while left and time.monotonic() - began < WAIT_S:
        now = {item.instance: item for item in client.get("/v1/status", StatusReport).instances}
        for instance in sorted(left):
            if _reached(report.action, now.get(instance), before.get(instance)):
                left.discard(instance)
                if not quiet:
                    print(f"{instance}: {now[instance].status} after {time.monotonic() - began:.1f} s")
        time.sleep(0.05 if left else 0)
    for instance in sorted(left):
        print(f"{instance}: not yet; `outrider logs {instance}` may tell why")
    return not left


def _reached(action: str, now: InstanceReport | None, before: InstanceReport | None) -> bool:
    if now is None:
        return False
    if action == "stop":
        return now.status == "stopped"
    other = before is None or now.pid != before.pid or now.since > before.since
    return now.status == "passing" and (action == "start" or other)
