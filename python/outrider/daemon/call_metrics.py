"""Metrics of the calls that this host's agents make: by caller and called agent, never by method."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from outrider.calls.tally import BOUNDS
from outrider.daemon.call_reports import CallReports

LABELS = ["fleet", "host", "instance", "target"]
STATES = {"closed": 0.0, "half-open": 0.5, "open": 1.0}


def call_metrics(reports: CallReports, fleet: str, host: str) -> Iterator[Metric]:
    """`instance` is who calls, `target` the agent that is called."""
    calls = CounterMetricFamily("outrider_calls", "Calls that ended.", labels=[*LABELS, "outcome"])
    seconds = HistogramMetricFamily("outrider_call_seconds", "How long calls took, retries included.", labels=LABELS)
    retries = CounterMetricFamily("outrider_call_retries", "Attempts after the first.", labels=LABELS)
    for (caller, agent), total in reports.pairs().items():
        labels = [fleet, host, caller, agent]
        for outcome, count in total.outcomes.items():
            calls.add_metric([*labels, outcome], count)
        bounds = (*map(str, BOUNDS), "+Inf")
        seconds.add_metric(labels, list(zip(bounds, accumulate(total.buckets), strict=True)), total.seconds)
        retries.add_metric(labels, total.retries)
    flying = GaugeMetricFamily("outrider_calls_in_flight", "Calls under way.", labels=LABELS)
    for (caller, agent), count in reports.in_flight().items():
        flying.add_metric([fleet, host, caller, agent], count)
    yield from (calls, seconds, retries, flying)
    yield from _circuits(reports, fleet, host)


def _circuits(reports: CallReports, fleet: str, host: str) -> Iterator[Metric]:
    text = "The most open circuit of this host's callers to an instance: 0 closed, 0.5 half open, 1 open."
    circuit = GaugeMetricFamily("outrider_circuit_open", text, labels=["fleet", "host", "agent", "instance"])
    openings = CounterMetricFamily(
        "outrider_circuit_openings", "Times that circuits opened.", labels=["fleet", "host", "agent", "instance"]
    )
    worst: dict[tuple[str, str], float] = {}
    opened: dict[tuple[str, str], int] = {}
    for _, report in reports.circuits():
        key = report.agent, report.instance
        worst[key] = max(worst.get(key, 0.0), STATES[report.state])
        opened[key] = opened.get(key, 0) + report.openings
    for key, value in worst.items():
        circuit.add_metric([fleet, host, *key], value)
        openings.add_metric([fleet, host, *key], opened[key])
    yield from (circuit, openings)
