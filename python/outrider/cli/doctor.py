"""`outrider doctor`: what is wrong on this host, and how to mend it. Works with nothing running."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from outrider.cli import consul_checks, host_checks
from outrider.cli.output import console, count, print_json, table
from outrider.cli.where import config_file, config_of
from outrider.errors import EXIT_FAILED, OutriderError
from outrider.host.config import Config
from outrider.host.reports import DoctorReport, Finding, StatusReport
from outrider.host.shim_client import ShimClient

if TYPE_CHECKING:
    from rich.text import Text

LAST_LINES = 20
LAST_LINE_LENGTH = 200


def doctor(args: argparse.Namespace) -> int:
    """Look at everything; exit code 1 if something is wrong."""
    findings = list(examine(args.runtime))
    wrong = [finding for finding in findings if not finding.ok]
    if args.json:
        print_json(DoctorReport(host_checks.host_name(), tuple(findings)))
    else:
        _show(findings, wrong)
    return EXIT_FAILED if wrong else 0


def examine(runtime: Path) -> Iterator[Finding]:
    """From the ground up: the machine, its folder, the shim, Consul, the agents."""
    client = ShimClient(runtime)
    config, finding = _config(runtime)
    yield finding
    yield from host_checks.machine(runtime, config)
    yield from host_checks.folder(runtime)
    try:
        report = client.get("/v1/doctor", DoctorReport)
    except OutriderError as error:
        reason = error.message
        mend = "start it: `make demo` in a checkout, `systemctl start outriderd` elsewhere; or name it with --runtime"
        yield Finding("shim", False, reason, mend)
        yield from consul_checks.consul_findings(runtime, config)
        if config:
            yield from host_checks.ports(config)
        return
    yield Finding("shim", True, f"answers for host {report.host}")
    yield from consul_checks.consul_findings(runtime, config)
    # What the shim says of Consul is said above already, unless it sees less than we do.
    told = [finding for finding in report.findings if not (finding.check == "consul" and finding.ok)]
    yield from (_with_last_line(client, finding) for finding in told)
    yield from _moved_ports(client, config, runtime)


def _config(runtime: Path) -> tuple[Config | None, Finding]:
    file = config_file(runtime)
    if file is None:
        mend = "run site.yml, which writes it (the demo: `make demo`); or name the shim with --runtime"
        return None, Finding("configuration", False, f"no outriderd.toml belongs to {runtime}", mend)
    try:
        return config_of(runtime), Finding("configuration", True, str(file))
    except OutriderError as error:
        return None, Finding("configuration", False, error.message, error.hint or "run site.yml: it writes this file")


def _with_last_line(client: ShimClient, finding: Finding) -> Finding:
    """An instance that is ill, with the last line that it wrote."""
    if finding.ok or not finding.mend.startswith("outrider logs "):
        return finding
    try:
        with client.request("GET", f"/v1/logs/{quote(finding.check)}?lines={LAST_LINES}") as reply:
            lines = [line.strip() for line in reply.read().decode(errors="replace").splitlines() if line.strip()]
    except (OutriderError, OSError):
        lines = []
    said = f"; it last wrote: {lines[-1][:LAST_LINE_LENGTH]}" if lines else "; it wrote nothing"
    return Finding(finding.check, False, finding.found + said, finding.mend)


def _moved_ports(client: ShimClient, config: Config | None, runtime: Path) -> Iterator[Finding]:
    if config is None:
        return
    try:
        status = client.get("/v1/status", StatusReport)
    except OutriderError:
        return  # it went meanwhile
    instances = {item.instance: item for item in status.instances}
    yield from consul_checks.moved_ports(runtime, config.host, instances)


def _show(findings: Iterable[Finding], wrong: list[Finding]) -> None:
    out = console()
    rows: list[list[str | Text]] = [[_mark(finding), finding.check, finding.found] for finding in findings]
    out.print(table(["", "check", "found"], rows, wrap=("found",)))
    out.print()
    if not wrong:
        out.print("nothing is wrong on this host", style="green")
        return
    out.print(f"{count(len(wrong), 'thing')} to mend:", style="bold red")
    for finding in wrong:
        out.print(f"  {finding.check}: {finding.mend or 'see above'}", markup=False, soft_wrap=True)


def _mark(finding: Finding) -> Text:
    from rich.text import Text

    return Text("ok", style="green") if finding.ok else Text("WRONG", style="bold red")
