"""`outrider logs NAME`: what an instance of this host wrote, from the shim, or from its folder when it is gone."""

from __future__ import annotations

import argparse
import codecs
import sys
from pathlib import Path

import msgspec

from outrider.cli.output import print_json
from outrider.cli.suggest import unknown
from outrider.cli.where import config_of
from outrider.errors import OutriderError, ShimUnreachable
from outrider.host.logs import follow, tail
from outrider.host.reports import InstanceReport, StatusReport
from outrider.host.shim_client import ShimClient


class Health(msgspec.Struct):
    """`GET /health` of a shim."""

    host: str


class LogLines(msgspec.Struct, frozen=True):
    """`logs --json`: a line each."""

    instance: str
    lines: tuple[str, ...]


def logs(args: argparse.Namespace) -> int:
    """Print the last lines, and with `--follow` what comes after."""
    client = ShimClient(args.runtime)
    try:
        report = client.get("/v1/status", StatusReport)
        here = client.get("/health", Health).host
    except ShimUnreachable as error:
        return _from_folder(args, error)
    names = instances_here(report, args.name, here)
    if args.follow and len(names) > 1:
        raise OutriderError(f"{args.name} has {len(names)} instances here", hint=f"follow one: {', '.join(names)}")
    if args.follow:
        return _follow(client, names[0], args)
    for name in names:
        with client.request("GET", f"/v1/logs/{name}?lines={args.lines}") as reply:
            text = reply.read().decode(errors="replace")
        _print(name, text.splitlines(), as_json=args.json, heading=len(names) > 1)
    return 0


def instances_here(report: StatusReport, name: str, here: str) -> list[str]:
    """Instances of this host that `name` names. Raises UnknownAgent, OutriderError if they are all elsewhere."""
    named = [item for item in report.instances if name in (item.instance, item.agent)]
    if not named:
        raise unknown(name, report)
    local = [item.instance for item in named if item.host == here]
    if not local:
        raise OutriderError(f"{_where(named)}; this is {here}", hint="logs stay on their host: run this there")
    return local


def _where(items: list[InstanceReport]) -> str:
    return ", ".join(f"{item.instance} is on host {item.host}" for item in items)


def _follow(client: ShimClient, name: str, args: argparse.Namespace) -> int:
    reply = client.request("GET", f"/v1/logs/{name}?lines={args.lines}&follow=1", None)
    decoder, rest = codecs.getincrementaldecoder("utf-8")("replace"), ""
    while chunk := reply.read1(65536):
        text = decoder.decode(chunk)
        if not args.json:
            sys.stdout.write(text)
            sys.stdout.flush()
            continue
        *whole, rest = (rest + text).split("\n")
        for line in whole:
            print_json(LogLines(name, (line,)), lines=True)
    raise ShimUnreachable("the shim has ended the log", hint="it was stopped or restarted; run this again")


def _print(name: str, lines: list[str], *, as_json: bool, heading: bool = False) -> None:
    if as_json:
        print_json(LogLines(name, tuple(lines)), lines=True)
        return
    if heading:
        print(f"==> {name} <==")
    for line in lines:
        print(line)


def _from_folder(args: argparse.Namespace, error: ShimUnreachable) -> int:
    """Without a shim: the files that it wrote. Raises `error` if they cannot be found."""
    config = config_of(args.runtime)
    if config is None:
        raise error
    found = files_of(config.log_dir / "agents", args.name)
    if not found:
        raise OutriderError(f"{error.message}, and {config.log_dir / 'agents'} has no log of {args.name}")
    print(f"outrider: {error.message}; these are the files it left", file=sys.stderr)
    if args.follow:
        import asyncio

        asyncio.run(_follow_file(found[0], args.lines))
    for path in found:
        _print(path.stem, tail(path, args.lines), as_json=args.json, heading=len(found) > 1)
    return 0


def files_of(folder: Path, name: str) -> list[Path]:
    """Logs of the agent or instance `name`: NAME.log, or NAME-<number>.log."""
    stems = {path: path.stem for path in sorted(folder.glob("*.log"))}
    return [p for p, stem in stems.items() if stem == name or (stem.rpartition("-")[0] == name and stem[-1].isdigit())]


async def _follow_file(path: Path, lines: int) -> None:
    async for chunk in follow(path, lines):
        sys.stdout.write(chunk)
        sys.stdout.flush()
