"""Round trips and throughput of all systems, in rounds: A B C A B C, so that a noisy moment hits all alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from calls_peers import REFERENCE
from calls_process import SYSTEMS
from harness import Row, row

sys.path.append(str(Path(__file__).resolve().parent.parent))

from hosts.lab.lab import Lab

PROCESS = Path(__file__).with_name("calls_process.py")
PAYLOADS = ("300 B", "32 KiB")
CALLERS = 8
# A vector as JSON takes 10 ms and more: a round of calls ends after this.
ROUND_S = 0.3
LOOPBACK = "127.0.0.1"


class Pair:
    """A server and the process that calls it, each with the command that brings it to its place."""

    def __init__(self, name: str, host: str, folder: Path, at_server: Sequence[str], at_caller: Sequence[str]) -> None:
        folder.mkdir()
        self._server = _start([*at_server, sys.executable, str(PROCESS), "serve", name, host, str(folder)])
        assert self._server.stdout is not None
        address = self._server.stdout.readline().strip()
        self._caller = _start([*at_caller, sys.executable, str(PROCESS), "call", name, address])

    def ask(self, payload: str, calls: int, callers: int = 1) -> dict[str, Any]:
        """Have calls made; how long each took, and what all cost."""
        assert self._caller.stdin is not None
        assert self._caller.stdout is not None
        served_s = _cpu_s(self._server.pid)
        asked = {"payload": payload, "calls": calls, "callers": callers, "seconds": ROUND_S}
        self._caller.stdin.write(json.dumps(asked) + "\n")
        self._caller.stdin.flush()
        found: dict[str, Any] = json.loads(self._caller.stdout.readline())
        found["cpu_s"] += _cpu_s(self._server.pid) - served_s
        return found

    def end(self) -> None:
        """Both of them."""
        for process in (self._caller, self._server):
            process.kill()
            process.wait()


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _cpu_s(pid: int) -> float:
    """Processor time of a process to the nanosecond (clock_getcpuclockid), where /proc has ticks of 10 ms."""
    return time.clock_gettime(~pid << 3 | 2)


def same_host(rounds: int, calls: int) -> list[Row]:
    """Over loopback and Unix sockets."""
    with tempfile.TemporaryDirectory() as folder:
        return _compare("same host", list(SYSTEMS), Path(folder), LOOPBACK, (), (), rounds, calls)


def across_hosts(rounds: int, calls: int) -> list[Row]:
    """Between two hosts of a lab: other networks, other addresses, a bridge between them."""
    if os.geteuid() != 0:
        print("the rows across hosts need root (systemd-nspawn): left out", file=sys.stderr)
        return []
    names = [name for name, system in SYSTEMS.items() if not system.unix]
    with lab() as hosts, tempfile.TemporaryDirectory() as folder:
        server, caller = hosts.machines()["lab1"], hosts.machines()["lab2"]
        inside = [["nsenter", f"--net=/proc/{machine.leader()}/ns/net"] for machine in (server, caller)]
        return _compare("across hosts", names, Path(folder), server.address, *inside, rounds, calls)


@contextmanager
def lab() -> Iterator[Lab]:
    """Two hosts, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="lab") as folder:
        made = Lab(Path(folder) / "lab")
        try:
            made.up(2)
            yield made
        finally:
            made.down()


def _compare(
    where: str,
    names: Sequence[str],
    folder: Path,
    host: str,
    at_server: Sequence[str],
    at_caller: Sequence[str],
    rounds: int,
    calls: int,
) -> list[Row]:
    with ExitStack() as stack:
        pairs: dict[str, Pair] = {}
        for number, name in enumerate(names):
            pairs[name] = Pair(name, host, folder / str(number), at_server, at_caller)
            stack.callback(pairs[name].end)
        return [found for payload in PAYLOADS for found in _rows(f"{where} {payload}", pairs, payload, rounds, calls)]


def _rows(case: str, pairs: dict[str, Pair], payload: str, rounds: int, calls: int) -> list[Row]:
    for pair in pairs.values():
        pair.ask(payload, calls // 4)
        pair.ask(payload, calls // 4, CALLERS)
    alone: dict[str, list[dict[str, Any]]] = {name: [] for name in pairs}
    together: dict[str, list[dict[str, Any]]] = {name: [] for name in pairs}
    for _ in range(rounds):
        for name, pair in pairs.items():
            alone[name].append(pair.ask(payload, calls))
            together[name].append(pair.ask(payload, calls, CALLERS))
    rows = []
    for name in pairs:
        took_us = [one for found in alone[name] for one in found["took_us"]]
        cpu_us = [found["cpu_s"] * 1e6 / len(found["took_us"]) for found in alone[name]]
        rates = [len(found["took_us"]) / found["seconds"] for found in together[name]]
        rows.append(row(case, name, "us", took_us))
        rows.append(row(f"{case}: CPU of both sides, a call", name, "us", cpu_us))
        rows.append(row(f"{case}: calls/s of {CALLERS} callers", name, "count", rates))
    return sorted(rows, key=lambda found: found.case)


def verdict(rows: Sequence[Row]) -> list[str]:
    """How much lower our p50 is than that of what the reference fleet does today, in the same run."""
    p50 = {(found.case, found.system): found.p50 for found in rows}
    return [
        f"{case}: outrider's p50 is {100 * (1 - ours / p50[case, REFERENCE]):.0f} % below {REFERENCE}"
        for (case, system), ours in p50.items()
        if system == "outrider" and case in [f"{w} {p}" for w in ("same host", "across hosts") for p in PAYLOADS]
    ]
