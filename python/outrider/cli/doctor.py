"""`outrider doctor`: what is wrong on this host, and how to mend it. Works with nothing running."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from outrider.cli.output import console, print_json, table
from outrider.cli.shim_client import ShimClient
from outrider.discovery.reader import Catalogue
from outrider.errors import EXIT_FAILED, OutriderError
from outrider.host.reports import DoctorReport, Finding

OPEN_FILES = 1024
FREE_BYTES = 256 * 2**20


def doctor(args: argparse.Namespace) -> int:
    """Look at everything; exit 1 if something is wrong."""
    findings = list(examine(args.runtime))
    if args.json:
        print_json(findings)
    else:
        rows = [[("ok" if f.ok else "WRONG"), f.check, f.found, f.mend] for f in findings]
        console().print(table(["", "check", "found", "mend"], rows))
    return 0 if all(finding.ok for finding in findings) else EXIT_FAILED


def examine(runtime: Path) -> Iterator[Finding]:
    """From the ground up: folder, limits, catalogue, shim, and what the shim itself sees."""
    if not runtime.is_dir():
        yield Finding("runtime folder", False, f"{runtime} is not there", "start the shim, or name it with --runtime")
        return
    yield Finding("runtime folder", True, str(runtime))
    yield from _limits(runtime)
    yield _catalogue(runtime)
    try:
        report = ShimClient(runtime).get("/v1/doctor", DoctorReport)
    except OutriderError as error:
        yield Finding("shim", False, error.message, "start it: `make demo`, or systemctl start outriderd")
        return
    yield Finding("shim", True, f"answers for host {report.host}")
    yield from report.findings


def _limits(runtime: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(runtime).free
    mend = "make room: the catalogue and every agent's state are written there"
    yield Finding(
        "disk", free > FREE_BYTES, f"{free / 2**30:.1f} GiB free under {runtime}", "" if free > FREE_BYTES else mend
    )
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft >= OPEN_FILES or soft == resource.RLIM_INFINITY
    yield Finding("open files", enough, f"limit {soft}", "" if enough else f"ulimit -n {OPEN_FILES} or more")
    writable = os.access(runtime, os.R_OK | os.X_OK)
    yield Finding(
        "rights", writable, f"{runtime} is {'' if writable else 'not '}readable", "" if writable else "join its group"
    )


def _catalogue(runtime: Path) -> Finding:
    try:
        catalogue = Catalogue(runtime)
        count, age = len(catalogue.names()), catalogue.age_s
    except OutriderError as error:
        return Finding("catalogue", False, error.message, error.hint)
    fresh = age < 5
    mend = "" if fresh else "Consul or the shim is away; lookups still answer from this snapshot"
    return Finding("catalogue", fresh, f"{count} agents, confirmed {age:.1f} s ago", mend)
