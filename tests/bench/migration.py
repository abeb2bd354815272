"""Migrations on lab hosts while the agent is called 200 times a second: total, hold, rollback, and failed calls.

    python tests/bench/migration.py [--only replicated,singleton,state,version,peers] [--count 60] [--add]

Needs root. Each strategy goes to and fro between two hosts; a version stays where it is. Every fourth migration goes
back: asked for by an operator, or by itself because the new version fails its calls. Calls come from a third host, and
all share the machine's clock. `--add` adds to what earlier parts measured; where $OUTRIDER_LAB names a lab, it is done
there, and the lab is left up.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from harness import ROOT, Samples, write
from lab_rows import running_fleet
from migration_lab import SLOT_NS, TOLD, Migrated, Observed, Observer, Operator, Seen
from migration_peers import peers
from msgspec import Struct

from hosts.fleet import Fleet

OURS = "outrider"
ENDS, CALLER = ("lab1", "lab2"), "lab4"
FLEET_FILE = Path(__file__).with_name("migrants") / "fleet.yml"
POLICY = {"canary": 0.2, "canary_s": 0.3, "verify_s": 1.0, "undecided": "accept"}
AFTER_S = 0.5  # calls that were sent so soon after its end may still tell of it
BACK_EVERY = 4


class Series(Struct, frozen=True):
    """Migrations of one kind: which agent, whether its host changes, and whether it has state."""

    agent: str
    moves: bool = True
    state: bool = False


SERIES = {
    "replicated": Series("Replica"),
    "singleton": Series("Single"),
    "state": Series("Keeper", state=True),
    "version": Series("Keeper", moves=False, state=True),
}


def series(fleet: Fleet, name: str, count: int, until: float, kept: Samples) -> None:
    """`count` migrations, as many as begin before `until`, under one observer's eyes."""
    kind, done = SERIES[name], []
    operator = Operator(fleet, CALLER)
    source, host = first(operator, kind.agent)
    with tempfile.TemporaryDirectory() as folder:
        observer = Observer(fleet, CALLER, kind.agent, Path(folder) / "seen")
        try:
            time.sleep(2)
            for turn in range(count):
                if time.monotonic() > until:
                    break
                to = ENDS[host == ENDS[0]] if kind.moves else host
                done.append(found := one(operator, name, source, to, turn))
                if found.outcome == "finalised":
                    source, host = found.target, to
                print(f"{name} {turn}: {line_of(found)}", flush=True)
                time.sleep(random.uniform(0.2, 0.5))
            operator.where(kind.agent)  # what it had before is gone
        finally:
            observed = observer.stop((source, host) if kind.state else None)
            operator.stop()
    if done:
        record(name, done, observed, kept)


def first(operator: Operator, agent: str) -> tuple[str, str]:
    """An instance on one of the two hosts; one is brought there if there is none."""
    placed = operator.where(agent)
    for source, host in placed:
        if host in ENDS:
            return source, host
    return operator.migrate(agent, placed[0][0], ENDS[0], POLICY).target, ENDS[0]


def one(operator: Operator, name: str, source: str, to: str, turn: int) -> Migrated:
    """The next of a series: most go through, some go back as an operator asks, some because they are bad."""
    kind = SERIES[name]
    back = turn % BACK_EVERY == BACK_EVERY - 1
    bad = back and turn // BACK_EVERY % 2 == 1
    version = f"bench-{time.time_ns()}" if bad or not kind.moves else ""
    # A replica is bad only when its calls beside the old ones have been judged.
    environment = {"FAILS": "0.5", "FAILS_AFTER_S": "0" if name != "replicated" else "0.25"} if bad else {}
    return operator.migrate(kind.agent, source, to, POLICY, version=version, back=back and not bad, **environment)


def record(name: str, done: list[Migrated], observed: Observed, kept: Samples) -> None:
    """What the calls say of each migration."""
    bad = {*observed.lost, *observed.doubled, *(call.number for call in observed.calls if failed(call))}
    for found, following in itertools.zip_longest(done, done[1:]):
        until = min(found.entries[-1]["at"] + AFTER_S, following.asked if following else float("inf"))
        calls = [call for call in observed.calls if found.asked - AFTER_S <= call.sent / 1e9 <= until]
        kept.add(f"{name} failed calls", OURS, "count", len(bad.intersection(call.number for call in calls)))
        bad.difference_update(call.number for call in calls)
        if found.outcome == "finalised":
            kept.add(f"{name} total", OURS, "s", found.entries[-1]["at"] - found.asked)
            hold, slowest = hold_ms(found, calls)
            kept.add(f"{name} hold", OURS, "ms", hold)
            kept.add(f"{name}, slowest call", OURS, "ms", slowest)
            for step, took_s in steps(found):
                kept.add(f"{name}, {step}", OURS, "ms", took_s * 1e3)
        elif (took_s := rollback_s(found, calls)) is not None:
            kept.add(f"{name} rollback", OURS, "s", took_s)
        else:
            print(f"{name}: {found.outcome}: {found.entries[-1].get('said')}", flush=True)
    kept.add(f"{name}: calls", OURS, "count", len(observed.calls))
    for number in sorted(bad):
        print(f"{name}: call {number} at {number * SLOT_NS / 1e9:.3f} failed outside of a migration", flush=True)
    for call in observed.calls:
        if failed(call):
            print(f"{name}: {call.number}: {call.error}", flush=True)
    print(f"{name}: lost {observed.lost}, more than once {observed.doubled}", flush=True)


def failed(call: Seen) -> bool:
    """Other than as a bad version is told to."""
    return bool(call.error) and TOLD not in call.error


def hold_ms(found: Migrated, calls: list[Seen]) -> tuple[float, float]:
    """Around the cutover: for how long at most nobody was answered, and how long the slowest call took."""
    began = next(at for step in ("shift", "hand over") if (at := found.at(step)))
    ended = (found.at("verify") or began) + 0.3
    near = [call for call in calls if began - 0.1 <= call.got / 1e9 and call.sent / 1e9 <= ended]
    answers = sorted(call.got for call in near if not call.error)
    gaps = (later - earlier for earlier, later in itertools.pairwise(answers))
    return max(gaps) / 1e6, max(call.got - call.sent for call in near) / 1e6


def rollback_s(found: Migrated, calls: list[Seen]) -> float | None:
    """From the verdict, or the operator's word, to the first answer of the old one; None if that never left."""
    if found.at("verify") is None and found.at("shift") is None:
        return None
    trigger = found.asked_back or found.at("rollback") or 0.0
    back = (call.got for call in calls if call.instance == found.source and call.got / 1e9 > trigger)
    return min(back) / 1e9 - trigger


def line_of(found: Migrated) -> str:
    """How it went, with the milliseconds of each step, and why it went back."""
    took = ", ".join(f"{step} {took_s * 1e3:.0f}" for step, took_s in steps(found))
    why = next((f"; {entry.get('said')}" for entry in found.entries if entry["what"] == "rollback"), "")
    return f"{found.outcome} after {found.entries[-1]['at'] - found.asked:.2f} s: {took}{why}"


def steps(found: Migrated) -> Iterator[tuple[str, float]]:
    """How long each step took until the next entry, and the first one until it was begun."""
    before, name = found.asked, "asked for"
    for entry in found.entries[1:]:
        yield name, entry["at"] - before
        before, name = entry["at"], entry.get("step", entry["what"])


def main() -> None:
    """Run the parts that are named, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join([*SERIES, "peers"]))
    parser.add_argument("--count", type=int, default=80, help="of each strategy; a quarter of them goes back")
    parser.add_argument("--rounds", type=int, default=20, help="of each peer")
    parser.add_argument("--within", type=float, default=float("inf"), help="begin nothing later than that, in seconds")
    parser.add_argument("--add", action="store_true", help="to the samples of earlier runs")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.within
    kept = Samples(ROOT / "build/bench/migration-samples.json", add=arguments.add)
    try:
        with running_fleet(fleet_file=str(FLEET_FILE)) as fleet:
            for name in arguments.only.split(","):
                if name == "peers":
                    peers(fleet, arguments.rounds, until, kept)
                else:
                    series(fleet, name, arguments.count, until, kept)
    finally:
        if rows := kept.rows():
            write("migration", rows)


if __name__ == "__main__":
    main()
