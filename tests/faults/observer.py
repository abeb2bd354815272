"""A process that calls every agent of the small fleet without end, and what its answers must agree with."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct, field

from hosts.fleet import Fleet

SINGLETONS = ("Counter", "Ledger", "Lone")
FENCED = ("Clerk",)  # it has a lease too; nobody calls it, so its own lines of work are what is judged
REPLICATED = ("Echo",)
STATE = "/var/lib/outrider-agents"
LINE_BYTES = 400  # more than one, less than four of those counted
WORK = re.compile(r"\d+ \S+:\d+")
OBSERVER = """
import json, os, sys, threading, time
os.environ["OUTRIDER_CALLS_TLS"] = "/etc/outrider/calls"
import outrider
said, done = threading.Lock(), threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
def observe(agent, method):
    number = 0
    while not done.wait(0.004):
        number += 1
        token = f"{sys.argv[1]}-{agent}-{number}"
        sent = time.monotonic_ns()
        line = {"agent": agent, "token": token, "sent_ns": sent}
        try:
            answer = outrider.call(agent, method, {"token": token} if method == "count" else None, timeout=2.0)
            line |= {"epoch": answer["epoch"], "instance": answer["instance"]}
        except outrider.CallError as error:
            line |= {"error": error.kind, "text": error.message}
        except outrider.OutriderError as error:
            line |= {"error": type(error).__name__, "text": error.message}
        line["got_ns"] = time.monotonic_ns()
        with said:
            print(json.dumps(line), flush=True)
threads = [threading.Thread(target=observe, args=(agent, "count")) for agent in sys.argv[2].split(",")]
threads += [threading.Thread(target=observe, args=(agent, "who")) for agent in sys.argv[3].split(",")]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


class Seen(Struct):
    """One call of the observer. `error` is empty where it was answered."""

    agent: str
    token: str
    sent_ns: int
    got_ns: int
    epoch: int = 0
    instance: str = ""
    error: str = ""
    text: str = ""


class Accepted(Struct, frozen=True):
    """One line of a singleton's own state."""

    token: str
    epoch: int
    instance: str
    at_ns: int


class Worked(NamedTuple):
    """One line of work of an agent with a dead-man. `run`: from one start of it to the end of all its processes."""

    at_ns: int
    run: str


class Verdict(Struct):
    """What came of a run. `violations` are what must never be. What has a dead-man answers by its lines of work."""

    violations: list[str] = field(default_factory=list)
    answered: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    longest_gap_s: dict[str, float] = field(default_factory=dict)


class Observer:
    """Calls from `host`, which must not be hurt meanwhile. `name` marks its tokens."""

    def __init__(self, fleet: Fleet, host: str, name: str, log: Path) -> None:
        self._log = log
        self._file = log.open("w")
        leader = str(fleet.lab.machines()[host].leader())
        words = ["-c", OBSERVER, name, ",".join(SINGLETONS), ",".join(REPLICATED)]
        self._process = subprocess.Popen(
            ["nsenter", "--target", leader, "--all", "--", "/opt/outrider/venv/bin/python", *words],
            stdin=subprocess.PIPE,
            stdout=self._file,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def stop(self) -> list[Seen]:
        """End it; everything that it saw."""
        self._process.communicate(timeout=30)
        self._file.close()
        return [Seen(**json.loads(line)) for line in self._log.read_text().splitlines()]


def written(fleet: Fleet) -> dict[tuple[str, str], int]:
    """How long each host's files of accepted counts and of work are; by host and path."""
    found = {}
    for host in fleet.lab.machines():
        text = fleet.on(host, f"stat -c '%s %n' {STATE}/*/accepted {STATE}/*/work 2>/dev/null; true")
        for size, path in (line.split() for line in text.splitlines()):
            found[host, path] = int(size)
    return found


def accepted(fleet: Fleet, agent: str, before: dict[tuple[str, str], int]) -> list[Accepted]:
    """What the instances of a singleton wrote down, on all hosts, in the order of time.

    A migration copies the state, so that the same line may be on several hosts: that is one count.
    `before`: what was `written` at the beginning; of that only the last line or two of each file are read.
    """
    lines = {line for text in _since(fleet, agent, before) for line in records(text)}
    return sorted(lines, key=lambda line: line.at_ns)


def _since(fleet: Fleet, agent: str, before: dict[tuple[str, str], int]) -> Iterator[str]:
    for host, path in written(fleet):
        if path.startswith(f"{STATE}/{agent}-"):
            yield fleet.on(host, f"tail -c +{max(1, before.get((host, path), 0) - LINE_BYTES)} {path}")


def records(text: str) -> list[Accepted]:
    """The whole ones of a part of such a file. A death in the middle of a line leaves a piece that the next follows."""
    whole = [line[line.rindex("{") :] for line in text.splitlines() if "{" in line and line.endswith("}")]
    return [Accepted(**json.loads(line)) for line in whole]


def worked(fleet: Fleet, agent: str, before: dict[tuple[str, str], int]) -> list[Worked]:
    """What an agent with a dead-man did, on all hosts, in the order of time: they share one monotonic clock."""
    lines = []
    for text in _since(fleet, agent, before):
        # Of the first line a part may be missing, and of the last one.
        for at_ns, run in (line.split() for line in text.splitlines()[1:] if WORK.fullmatch(line)):
            lines.append(Worked(int(at_ns), run))
    return sorted(lines)


def judge(fleet: Fleet, seen: list[Seen], before: dict[tuple[str, str], int]) -> Verdict:
    """Never two holders at work, and no acknowledged count lost or counted twice."""
    verdict = Verdict()
    for agent in SINGLETONS:
        lines = accepted(fleet, agent, before)
        verdict.violations += [f"{agent}: {text}" for text in _overlaps(lines)]
        answered = [call for call in seen if call.agent == agent and not call.error]
        verdict.violations += [f"{agent}: {text}" for text in _lost(lines, answered)]
    began_ns = min((call.sent_ns for call in seen), default=0)
    for agent in FENCED:
        work = worked(fleet, agent, before)
        verdict.violations += [f"{agent}: {text}" for text in _at_once(work)]
        meanwhile = [line.at_ns for line in work if line.at_ns >= began_ns]
        verdict.answered[agent] = len(meanwhile)
        verdict.longest_gap_s[agent] = _longest_gap_s(meanwhile)
    for agent in (*SINGLETONS, *REPLICATED):
        calls = [call for call in seen if call.agent == agent]
        verdict.answered[agent] = sum(not call.error for call in calls)
        verdict.errors |= {f"{agent} {kind}": n for kind, n in Counter(c.error for c in calls if c.error).items()}
        verdict.longest_gap_s[agent] = _longest_gap_s([call.got_ns for call in calls if not call.error])
    return verdict


def _overlaps(lines: list[Accepted]) -> Iterator[str]:
    """No work was accepted under an epoch after work under a later one, nor by two instances under one."""
    holders: dict[int, str] = {}
    latest = 0
    for line in lines:
        if line.epoch == 0:
            yield f"{line.instance} accepted {line.token} without a lease"
        if line.epoch < latest:
            yield f"{line.instance} accepted {line.token} under epoch {line.epoch} after {latest}"
        if holders.setdefault(line.epoch, line.instance) != line.instance:
            yield f"{line.instance} and {holders[line.epoch]} both accepted work under epoch {line.epoch}"
        latest = max(latest, line.epoch)


def _lost(lines: list[Accepted], answered: list[Seen]) -> Iterator[str]:
    kept = Counter((line.token, line.epoch, line.instance) for line in lines)
    tokens = Counter(line.token for line in lines)
    for call in answered:
        if not kept[call.token, call.epoch, call.instance]:
            yield f"{call.token} was acknowledged by {call.instance} (epoch {call.epoch}) and is not in its state"
        if tokens[call.token] > 1:
            yield f"{call.token} was counted {tokens[call.token]} times"


def _at_once(work: list[Worked]) -> Iterator[str]:
    """A run has ended, with all its processes, before the next one's first line."""
    over: set[str] = set()
    for earlier, later in itertools.pairwise(work):
        if earlier.run != later.run:
            over.add(earlier.run)
            if later.run in over:
                yield f"{later.run} worked after {earlier.run} had begun to, at {later.at_ns / 1e9:.3f} s"


def _longest_gap_s(times_ns: list[int]) -> float:
    return max((later - earlier for earlier, later in itertools.pairwise(sorted(times_ns))), default=0) / 1e9
