"""What processes report of their calls is added up, never goes back, and tells who is ill for this host."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from outrider.calls.reports import CircuitReport, ProcessReport, Sample, TallyReport
from outrider.calls.tally import BOUNDS, MOST_METHODS, OTHER
from outrider.daemon.call_metrics import call_metrics
from outrider.daemon.call_reports import CallReports, quantile

HERE = os.getpid()
GONE = 1 << 22  # above the highest process id there is


class Host:
    """Reports at a time that is given."""

    def __init__(self) -> None:
        self.now = 100.0
        self.changes = 0
        locals_: Any = {"Asker-1": SimpleNamespace(), "Asker-2": SimpleNamespace()}
        self.reports = CallReports(locals_, lambda: ("Echo",), self._changed, lambda: self.now)

    def _changed(self) -> None:
        self.changes += 1

    def tell(
        self,
        caller: str,
        *,
        pid: int = HERE,
        ok: int = 0,
        failed: int = 0,
        agent: str = "Echo",
        method: str = "say",
        **circuit: Any,
    ) -> None:
        outcomes = {"ok": ok, **({"failed": failed} if failed else {})}
        buckets = (ok + failed, *([0] * len(BOUNDS)))
        tally = TallyReport(agent, method, outcomes, buckets, 0.5, 1)
        circuits = (self.circuit(**circuit),) if circuit else ()
        sample = Sample(1.0, agent, "say", "failed", 0.1, "trace")
        self.reports.take(ProcessReport(caller, pid, (tally,), circuits, (sample,) if failed else ()))

    def circuit(self, state: Any = "closed", answered_s: float = 0.0, instance: str = "Echo-1") -> CircuitReport:
        return CircuitReport("Echo", instance, state, "why", 1, 2, answered_s)


def test_a_report_replaces_the_one_before_it_and_processes_add_up() -> None:
    host = Host()
    host.tell("Asker-1", ok=3)
    host.tell("Asker-1", ok=5, failed=1)
    host.tell("Asker-1", pid=HERE + 1, ok=10)
    (row,) = host.reports.calls_report().calls
    assert (row.caller, row.agent, row.calls, row.failed, row.methods) == ("Asker-1", "Echo", 16, 1, {"say": 16})
    assert [sample.outcome for sample in host.reports.calls_report().samples] == ["failed"]


def test_counts_do_not_go_back_when_a_process_ends() -> None:
    host = Host()
    host.tell("Asker-1", pid=GONE, ok=7)
    host.now += 60
    host.reports.tick()
    host.tell("Asker-1", ok=1)
    assert [row.calls for row in host.reports.calls_report().calls] == [8]


def test_what_is_kept_of_processes_that_are_gone_does_not_grow_with_the_names_that_they_made_up() -> None:
    host = Host()
    for number in range(3 * MOST_METHODS):
        host.tell("a-script", pid=GONE + number, ok=1, method=f"say-{number}")
        host.tell("a-script", pid=GONE + number, ok=1, agent=f"Nonsense-{number}")
        host.now += 60
        host.reports.tick()
    found = {(row.agent): row for row in host.reports.calls_report().calls}
    assert {agent: row.calls for agent, row in found.items()} == {"Echo": 3 * MOST_METHODS, OTHER: 3 * MOST_METHODS}
    assert len(found["Echo"].methods) == MOST_METHODS + 1
    assert len(host.reports._ended) <= 2 * (MOST_METHODS + 1)


def test_who_is_no_instance_and_what_is_no_agent_are_others() -> None:
    host = Host()
    host.tell("a-script", ok=1)
    host.tell("another", pid=HERE + 1, ok=1, agent="Nonsense")
    assert {(row.caller, row.agent) for row in host.reports.calls_report().calls} == {(OTHER, "Echo"), (OTHER, OTHER)}


def test_an_instance_is_ill_when_a_circuit_is_open_and_nobody_gets_answers() -> None:
    host = Host()
    host.tell("Asker-1", state="open")
    assert (host.reports.ill, host.changes) == ({"Echo-1"}, 1)
    host.tell("Asker-2", pid=HERE + 1, state="closed", answered_s=0.1)
    assert (host.reports.ill, host.changes) == (set(), 2)
    host.now += 3
    host.tell("Asker-1", state="half-open")
    assert host.reports.ill == {"Echo-1"}
    host.tell("Asker-1", state="closed", answered_s=0.0)
    assert host.reports.ill == set()


def test_who_says_nothing_any_more_keeps_nobody_ill() -> None:
    host = Host()
    host.tell("Asker-1", state="open")
    host.now += 10
    host.reports.tick()
    assert host.reports.ill == set()


def test_rates_are_of_the_last_seconds() -> None:
    host = Host()
    host.tell("Asker-1", ok=1000)
    for count in range(20):
        host.reports.tick()
        host.now += 1
        host.tell("Asker-1", ok=1000 + 5 * (count + 1))
    (row,) = host.reports.calls_report().calls
    assert 4.5 < row.per_s < 5.5
    assert row.p50_s == BOUNDS[0]


def test_open_circuits_come_first() -> None:
    host = Host()
    host.tell("Asker-1", state="closed", instance="Echo-1")
    host.tell("Asker-2", pid=HERE + 1, state="open", instance="Echo-2")
    rows = host.reports.breakers_report().circuits
    assert [(row.instance, row.state, row.ill) for row in rows] == [
        ("Echo-2", "open", True),
        ("Echo-1", "closed", False),
    ]


def test_metrics_are_by_caller_and_agent() -> None:
    host = Host()
    host.tell("Asker-1", ok=3, failed=1, state="open")
    metrics = {metric.name: metric for metric in call_metrics(host.reports, "lab", "h1")}
    ours = {"fleet": "lab", "host": "h1", "instance": "Asker-1", "target": "Echo"}
    assert {s.labels["outcome"]: s.value for s in metrics["outrider_calls"].samples} == {"ok": 3, "failed": 1}
    assert metrics["outrider_call_retries"].samples[0].labels == ours
    counts = [s.value for s in metrics["outrider_call_seconds"].samples if s.name.endswith("_bucket")]
    assert counts == [4.0] * (len(BOUNDS) + 1)
    assert [s.value for s in metrics["outrider_circuit_open"].samples] == [1.0]
    assert [s.value for s in metrics["outrider_calls_in_flight"].samples] == [2]


def test_quantiles_are_the_bounds_of_buckets() -> None:
    buckets = [0] * (len(BOUNDS) + 1)
    assert quantile(buckets, 0.5) is None
    buckets[3], buckets[8] = 90, 10
    assert (quantile(buckets, 0.5), quantile(buckets, 0.99)) == (BOUNDS[3], BOUNDS[8])
