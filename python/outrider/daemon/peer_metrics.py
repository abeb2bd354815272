"""Metrics of the datagrams between shims."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from outrider.host.peers import Peers

LABELS = ["fleet", "host"]


def peer_metrics(peers: Peers | None, fleet: str, host: str) -> Iterator[Metric]:
    """None where no key is configured."""
    if peers is None:
        return
    gauges = {
        "outrider_peers": ("Other hosts that this one knows.", peers.known),
        "outrider_peers_down": ("Hosts that their watchers do not hear.", len(peers.down_hosts)),
        "outrider_peers_instances_down": (
            "Instances that their hosts' shims told to be down.",
            len(peers.down_instances),
        ),
    }
    for name, (text, value) in gauges.items():
        gauge = GaugeMetricFamily(name, text, labels=LABELS)
        gauge.add_metric([fleet, host], value)
        yield gauge
    doubts = CounterMetricFamily("outrider_peers_doubts", "Times that this shim ran too late to judge.", labels=LABELS)
    doubts.add_metric([fleet, host], peers.doubts)
    ways = CounterMetricFamily("outrider_peers_datagrams", "Datagrams by direction.", labels=[*LABELS, "direction"])
    ways.add_metric([fleet, host, "sent"], peers.line.sent)
    ways.add_metric([fleet, host, "received"], peers.line.received)
    drops = CounterMetricFamily("outrider_peers_dropped", "Datagrams dropped, by reason.", labels=[*LABELS, "reason"])
    for reason, count in peers.line.drops.counts.items():
        drops.add_metric([fleet, host, reason], count)
    yield from (doubts, ways, drops)
