"""Rows of a benchmark: quantiles of samples, printed as a table and written to build/bench/NAME.json."""

from __future__ import annotations

import itertools
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
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


class Samples:
    """Samples by case, system and unit, a line each in a file: a benchmark can be run in parts, and be cut off."""

    def __init__(self, path: Path, *, add: bool, within_s: float = float("inf")) -> None:
        self._path = path
        self._end = time.monotonic() + within_s
        path.parent.mkdir(parents=True, exist_ok=True)
        if not add:
            path.unlink(missing_ok=True)

    def turns(self, count: int) -> Iterator[int]:
        """As many as `count`, but none is begun once the time is over."""
        return itertools.takewhile(lambda _: time.monotonic() < self._end, range(count))

    def add(self, case: str, system: str, unit: str, sample: float) -> None:
        """One more, on disk when this returns."""
        with self._path.open("a") as file:
            file.write(json.dumps([case, system, unit, sample]) + "\n")

    def rows(self) -> list[Row]:
        """Of all that were ever added."""
        found: dict[tuple[str, str, str], list[float]] = {}
        for line in self._path.read_text().splitlines() if self._path.exists() else []:
            case, system, unit, sample = json.loads(line)
            found.setdefault((case, system, unit), []).append(sample)
        return [row(*key, samples) for key, samples in sorted(found.items())]
