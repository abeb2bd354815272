"""Rows of a benchmark: quantiles of samples, printed as a table and written to build/bench/NAME.json."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, to_builtins
from rich.console import Console

from outrider.cli.output import table

ROOT = Path(__file__).resolve().parents[2]


class Row(Struct):
    """One case of one system; quantiles in `unit` (us, ms, s, bytes, count or ratio)."""

    case: str
    system: str
    unit: str
    n: int
    p50: float
    p90: float
    p99: float
    max: float


def row(case: str, system: str, unit: str, samples: Sequence[float]) -> Row:
    """The row of `samples`, nearest-rank quantiles."""
    ordered = sorted(samples)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4)

    return Row(case, system, unit, len(ordered), at(0.5), at(0.9), at(0.99), round(ordered[-1], 4))


def write(name: str, rows: Sequence[Row]) -> Path:
    """Print the rows and write them with the machine and the time."""
    cells = [
        [r.case, r.system, r.unit, f"{r.n:,}", *(f"{value:,.10g}" for value in (r.p50, r.p90, r.p99, r.max))]
        for r in rows
    ]
    # Wide enough for every figure, also where the output is a file.
    Console(width=160).print(table(["case", "system", "unit", "n", "p50", "p90", "p99", "max"], cells))
    path = ROOT / "build/bench" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    path.write_text(
        json.dumps({"name": name, "when": when, "machine": machine, "rows": to_builtins(list(rows))}, indent=1)
    )
    print(f"written to {path.relative_to(ROOT)}")
    return path
