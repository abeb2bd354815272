"""What the processes of this host tell of their calls: added up, and which instances are ill for them."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct, field

from outrider.calls.reports import CircuitReport, ProcessReport, Sample, TallyReport
from outrider.calls.tally import BOUNDS, MOST_METHODS, OTHER
from outrider.host.reports import BreakersReport, CallRow, CallsReport, CircuitRow, SampleRow
from outrider.host.state import Local

FRESH_S = 3.5  # a process with an open circuit reports every second
ANSWERED_S = 2.0
SILENT_S = 10.0  # then it is looked whether it lives
RATE_S = 10
MOST_SAMPLES = 200


class Process(Struct):
    """The last report of one process, and when it came, in seconds of the monotonic clock."""

    report: ProcessReport
    at: float


class Sum(Struct):
    """Calls of one caller to one method, in all."""

    outcomes: dict[str, int] = field(default_factory=dict)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0
    retries: int = 0

    def add(self, other: TallyReport | Sum) -> None:
        """Count what `other` counted too."""
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count
        self.buckets = [one + more for one, more in zip(self.buckets, other.buckets, strict=True)]
        self.seconds += other.seconds
        self.retries += other.retries

    @property
    def calls(self) -> int:
        """All of them."""
        return sum(self.outcomes.values())


Key = tuple[str, str, str]  # caller, agent, method


class CallReports:
    """Of one host. `changed` is called when the set of ill instances is another."""

    def __init__(
        self,
        locals_: Mapping[str, Local],
        agents: Callable[[], Iterable[str]],
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ill: frozenset[str] = frozenset()
        self._locals = locals_
        self._agents = agents
        self._changed = changed
        self._clock = clock
        self._processes: dict[tuple[str, int], Process] = {}
        self._ended: dict[Key, Sum] = {}  # of processes that are gone, so that no count goes back
        self._samples: deque[SampleRow] = deque(maxlen=MOST_SAMPLES)
        self._past: deque[tuple[float, dict[tuple[str, str], Sum]]] = deque(maxlen=RATE_S + 1)

    def take(self, report: ProcessReport) -> None:
        """One datagram. Parts of one report follow each other, so they are joined by what they are about."""
        caller = report.caller if report.caller in self._locals else OTHER
        key = caller, report.pid
        known = self._processes.get(key)
        if known:
            report = _joined(known.report, report)
        self._processes[key] = Process(report, self._clock())
        self._samples.extend(_sample_row(caller, sample) for sample in report.samples)
        self._judge()

    def tick(self) -> None:
        """Once a second: forget who is gone, remember what there was for the rates."""
        now = self._clock()
        for key, process in list(self._processes.items()):
            if now - process.at > SILENT_S and not _lives(key[1]):
                self._keep(key[0], process.report.tallies)
                del self._processes[key]
        self._past.append((now, self.pairs()))
        self._judge()

    def _keep(self, caller: str, tallies: Iterable[TallyReport]) -> None:
        """The counts of a process that is gone. Its names may be any, and what is kept must not grow with them."""
        known = set(self._agents())
        for tally in tallies:
            agent = tally.agent if tally.agent in known else OTHER
            methods = sum(key[:2] == (caller, agent) for key in self._ended)
            key = caller, agent, tally.method
            key = key if key in self._ended or methods < MOST_METHODS else (caller, agent, OTHER)
            self._ended.setdefault(key, Sum()).add(tally)

    def pairs(self) -> dict[tuple[str, str], Sum]:
        """Sums by caller and agent."""
        found: dict[tuple[str, str], Sum] = {}
        known = set(self._agents())
        for (caller, agent, _), tally in self._tallies():
            found.setdefault((caller, agent if agent in known else OTHER), Sum()).add(tally)
        return found

    def circuits(self) -> Iterator[tuple[str, CircuitReport]]:
        """Every circuit of a living process, with its caller."""
        for (caller, _), process in self._processes.items():
            for circuit in process.report.circuits:
                yield caller, circuit

    def in_flight(self) -> dict[tuple[str, str], int]:
        """Calls under way by caller and agent, as of the last report."""
        found: dict[tuple[str, str], int] = {}
        for caller, circuit in self.circuits():
            found[caller, circuit.agent] = found.get((caller, circuit.agent), 0) + circuit.in_flight
        return found

    def calls_report(self) -> CallsReport:
        """Who calls whom, and how that went."""
        now, flying = self._clock(), self.in_flight()
        past_at, past = self._past[0] if self._past else (now, {})
        span_s = max(now - past_at, 1e-9)
        rows = []
        for (caller, agent), total in sorted(self.pairs().items()):
            before = past.get((caller, agent), Sum())
            lately = [n - b for n, b in zip(total.buckets, before.buckets, strict=True)]
            rows.append(
                CallRow(
                    caller=caller,
                    agent=agent,
                    calls=total.calls,
                    per_s=(total.calls - before.calls) / span_s,
                    failed=total.calls - total.outcomes.get("ok", 0),
                    outcomes=total.outcomes,
                    retries=total.retries,
                    in_flight=flying.get((caller, agent), 0),
                    p50_s=quantile(lately, 0.5),
                    p99_s=quantile(lately, 0.99),
                    methods=self._methods(caller, agent),
                )
            )
        return CallsReport(tuple(rows), tuple(self._samples))

    def breakers_report(self) -> BreakersReport:
        """Every circuit, those that are not closed first."""
        rows = [
            CircuitRow(caller, c.agent, c.instance, c.state, c.reason, c.openings, c.in_flight, c.instance in self.ill)
            for caller, c in self.circuits()
        ]
        rows.sort(key=lambda row: (row.state == "closed", row.agent, row.instance, row.caller))
        return BreakersReport(tuple(rows))

    def _methods(self, caller: str, agent: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for (one, other, method), tally in self._tallies():
            if (one, other) == (caller, agent):
                name = method if method in found or len(found) < MOST_METHODS else OTHER
                found[name] = found.get(name, 0) + sum(tally.outcomes.values())
        return found

    def _tallies(self) -> Iterator[tuple[Key, TallyReport | Sum]]:
        yield from self._ended.items()
        for (caller, _), process in self._processes.items():
            for tally in process.report.tallies:
                yield (caller, tally.agent, tally.method), tally

    def _judge(self) -> None:
        """An instance is ill for this host when a circuit to it is open and nobody here gets answers out of it."""
        now = self._clock()
        shut, well = set(), set()
        for process in self._processes.values():
            age_s = now - process.at
            if age_s > FRESH_S:
                continue
            for circuit in process.report.circuits:
                if circuit.state != "closed":
                    shut.add(circuit.instance)
                elif circuit.answered_s + age_s < ANSWERED_S:
                    well.add(circuit.instance)
        ill = frozenset(shut - well)
        if ill != self.ill:
            self.ill = ill
            self._changed()


def quantile(buckets: list[int], share: float) -> float | None:
    """The upper bound of the bucket in which that share of calls is reached, seconds; None if there were none."""
    total = sum(buckets)
    if total <= 0:
        return None
    reached = 0
    for bound, count in zip((*BOUNDS, BOUNDS[-1] * 2), buckets, strict=True):
        reached += count
        if reached >= share * total:
            return bound
    return BOUNDS[-1] * 2


def _joined(old: ProcessReport, new: ProcessReport) -> ProcessReport:
    tallies = {(t.agent, t.method): t for t in (*old.tallies, *new.tallies)}
    if not new.circuits:
        circuits = old.circuits
    else:
        named = {c.agent for c in new.circuits}
        circuits = (*(c for c in old.circuits if c.agent not in named), *new.circuits)
    return ProcessReport(new.caller, new.pid, tuple(tallies.values()), circuits, new.samples)


def _sample_row(caller: str, sample: Sample) -> SampleRow:
    return SampleRow(sample.at, caller, sample.agent, sample.method, sample.outcome, sample.seconds, sample.trace)


def _lives(pid: int) -> bool:
    with contextlib.suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
