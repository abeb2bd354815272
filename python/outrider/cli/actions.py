"""`outrider start|stop|restart`: tell the shim, then wait until it is so."""

from __future__ import annotations

import argparse
import sys
import time
from urllib.parse import quote

import msgspec

from outrider.cli.output import Progress, count, print_json
from outrider.cli.parser import UsageError
from outrider.cli.suggest import unknown
from outrider.errors import EXIT_FAILED, ConsulDenied
from outrider.host.reports import ActionReport, InstanceReport, StatusReport
from outrider.host.shim_client import ShimClient

POLL_S = 0.05
WELL = ("passing", "warning")  # it serves; what it lacks is another agent
DRAIN_S = 120.0


class Done(msgspec.Struct, frozen=True):
    """`--json` of an action. `left`: instances that are not as asked, and how they are. `took_s`: seconds waited."""

    action: str
    instances: tuple[str, ...]
    left: dict[str, str]
    took_s: float


class Ended(msgspec.Struct, frozen=True):
    """Answer to a shutdown."""

    stopped: bool


def act(args: argparse.Namespace) -> int:
    """Tell, then wait until it is so. Exit code 1 if it is not in time; what was asked for then still holds."""
    client = ShimClient(args.runtime)
    if args.action == "stop" and args.all == bool(args.name):
        raise UsageError("stop takes the name of an agent or an instance, or --all", hint="outrider stop MemoryClient")
    if args.action == "stop" and args.all:
        return _shut_down(client, as_json=args.json)
    report = client.get("/v1/status", StatusReport)
    if not any(args.name in (item.agent, item.instance) for item in report.instances):
        raise unknown(args.name, report)
    hosts = {item.instance: item.host for item in report.instances}
    began = time.monotonic()
    told = _tell(client, report, args)
    left = _wait(client, told, args) if args.wait else {}
    if args.json:
        print_json(Done(told.action, told.instances, left, round(time.monotonic() - began, 3)))
    elif not args.wait:
        print(f"{told.action} is asked for: {', '.join(told.instances)}")
    for name, how in () if args.json else left.items():
        print(f"outrider: {name} is not there after {args.timeout:.0f} s: {how}\n"
              f"  see `outrider logs {name}` on {hosts.get(name, 'its host')}", file=sys.stderr)  # fmt: skip
    return EXIT_FAILED if left else 0


def _tell(client: ShimClient, report: StatusReport, args: argparse.Namespace) -> ActionReport:
    try:
        return client.post(f"/v1/agents/{quote(args.name)}/{args.action}", ActionReport)
    except ConsulDenied as error:
        hosts = sorted({item.host for item in report.instances if args.name in (item.agent, item.instance)})
        hint = f"a host may change what may run there: ask on {' or '.join(hosts)}, or where a Consul server runs"
        raise ConsulDenied(error.message, hint=hint) from error


def _shut_down(client: ShimClient, *, as_json: bool) -> int:
    report = client.get("/v1/status", StatusReport)
    here = [item for item in report.instances if item.pid is not None]
    progress = Progress(quiet=as_json)
    progress.show(f"draining this host, stopping {count(len(here), 'instance')} ...")
    ended = client.post("/v1/shutdown", Ended, DRAIN_S)
    progress.clear()
    print_json(ended) if as_json else print(
        f"{count(len(here), 'instance')} of this host stopped and deregistered, the shim has ended"
    )
    return 0 if ended.stopped else EXIT_FAILED


def _wait(client: ShimClient, told: ActionReport, args: argparse.Namespace) -> dict[str, str]:
    """Wait until every instance is as asked; returns those that are not, and how they are."""
    left = dict.fromkeys(told.instances, "unknown")
    began = time.monotonic()
    progress = Progress(quiet=args.json)
    while True:
        now = {item.instance: item for item in client.get("/v1/status", StatusReport).instances}
        took_s = time.monotonic() - began
        for name in sorted(left):
            left[name] = _how(now.get(name))
            if reached(told.action, now.get(name), told.generations.get(name, 0)):
                del left[name]
                progress.clear()
                if not args.json:
                    print(f"{name}: {now[name].status} after {took_s:.2f} s", flush=True)
        if not left or took_s > args.timeout:
            progress.clear()
            return left
        progress.show(f"{took_s:4.1f} s  " + ", ".join(f"{name}: {how}" for name, how in sorted(left.items()))[:70])
        time.sleep(POLL_S)


def _how(item: InstanceReport | None) -> str:
    if item is None:
        return "gone"
    return f"{item.status}, {item.detail}" if item.detail not in ("", item.status) else item.status


def reached(action: str, now: InstanceReport | None, generation: int) -> bool:
    """Whether an instance, on whatever host, is as the action wants it. After a restart it is of that generation."""
    if now is None:
        return False
    if action == "stop":
        return now.status == "stopped"
    if action == "start":
        return now.status in WELL
    return now.status in WELL and now.generation >= generation
