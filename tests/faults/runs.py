"""The runs of the fault suite that are kept, by seed and by the code they were made with, and what they say."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from faults.injected import FAULTS
from faults.observer import Verdict
from hosts.lab.image import CHECKOUT

KEPT = CHECKOUT / "build/faults.jsonl"
CODE = CHECKOUT / "python/outrider"
AGENTS = {
    "Counter": "one standby",
    "Ledger": "two standbys",
    "Lone": "no standby",
    "Echo": "replicated",
    "Clerk": "dead-man",
}


class Run(Struct):
    """One fault, or two at once, and what came of it. `well_s`: from its beginning until all was well again.

    agent: whose holder was meant to be hurt, if any in particular
    """

    seed: int
    faults: tuple[str, ...]
    well_s: float
    verdict: Verdict
    code: str = ""
    calm_s: float = 0.0
    agent: str = ""

    @property
    def what(self) -> str:
        """The names of its faults."""
        return " + ".join(self.faults)


def code() -> str:
    """Which product was hurt: changes with any line of it."""
    files = sorted(CODE.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def kept() -> list[Run]:
    """All runs so far."""
    lines = KEPT.read_bytes().splitlines() if KEPT.exists() else []
    return [msgspec.json.decode(line, type=Run) for line in lines]


def keep(run: Run) -> None:
    """Add it to those that were done before."""
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with KEPT.open("ab") as file:
        file.write(msgspec.json.encode(run) + b"\n")


def bound(runs: int) -> float:
    """With none in `runs`, the share that they may have at most, with 95 % confidence: 1 - 0.05 ** (1 / runs)."""
    return 1 - 0.05 ** (1 / runs)


def report(runs: list[Run]) -> list[str]:
    """What they say together."""
    calm, runs = [run for run in runs if run.calm_s], [run for run in runs if not run.calm_s]
    bad = [run for run in runs if run.verdict.violations]
    injected = sum(len(run.faults) for run in runs)
    said = f"{len(runs)} runs with {injected} faults, {len(bad)} of them with violations"
    if runs and not bad:
        said += f": fewer than {bound(len(runs)):.2%} of such runs have one (95 %)"
    lines = [said, f"seeds {spans(run.seed for run in runs)}"]
    for version in sorted({run.code for run in runs}):
        lines.append(f"of code {version}: {spans(run.seed for run in runs if run.code == version)}")
    for run in calm:
        said = "; ".join(run.verdict.violations) or "nothing failed over"
        calls = sum(run.verdict.answered.values())
        lines.append(f"{run.calm_s / 60:g} minutes of {run.what}, code {run.code}: {said}; {calls:,} calls answered")
    return lines + [f"VIOLATION seed {run.seed}, {run.what}: {run.verdict.violations[0]}" for run in bad]


def spans(seeds: Iterable[int]) -> str:
    """1 to 3, 7."""
    found: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if found and seed == found[-1][1] + 1:
            found[-1][1] = seed
        else:
            found.append([seed, seed])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in found)


def line_of(run: Run) -> str:
    """What came of it, in one line."""
    gaps = ", ".join(f"{agent} {gap:.2f}" for agent, gap in run.verdict.longest_gap_s.items())
    failed = ", ".join(f"{kind} {count}" for kind, count in run.verdict.errors.items()) or "none"
    what = f"{run.seed:4d} {run.what}: well after {run.well_s:.1f} s"
    return f"{what}; without an answer at most, s: {gaps}; failed: {failed}"


def table(runs: list[Run]) -> list[str]:
    """For the documentation, by fault: alone, and together with others (medians and maxima of seconds)."""
    columns = ["alone", "in pairs", "well after: median, max", *AGENTS.values()]
    lines = [f"| fault | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for name, fault in FAULTS.items():
        alone = [run for run in runs if run.faults == (name,) and not run.calm_s]
        pairs = sum(name in run.faults and len(run.faults) > 1 for run in runs)
        cells = [(fault.__doc__ or name).strip(), str(len(alone)), str(pairs)]
        if alone:
            times = [run.well_s for run in alone]
            cells.append(f"{statistics.median(times):.1f}, {max(times):.1f}")
            cells += [_longest(alone, agent) for agent in AGENTS]
        else:
            cells += ["-"] * (1 + len(AGENTS))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _longest(runs: list[Run], agent: str) -> str:
    gaps = [gap for run in runs if (gap := run.verdict.longest_gap_s.get(agent)) is not None]
    return f"{max(gaps):.2f}" if gaps else "-"
