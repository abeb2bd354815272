"""The shim's metrics, in Prometheus' text format. Values are read when they are scraped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from outrider.daemon.call_metrics import call_metrics
from outrider.daemon.peer_metrics import peer_metrics

if TYPE_CHECKING:
    from outrider.daemon.shim import Shim

INSTANCE_LABELS = ["fleet", "host", "agent", "instance"]
HOST_LABELS = ["fleet", "host"]


class Metrics(Collector):
    """What the shim measures. `probe_seconds` is called with an instance and the seconds its last probe took."""

    def __init__(self, shim: Shim) -> None:
        self._shim = shim
        self._probe_seconds: dict[str, float] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(namespace="outrider_shim", registry=self._registry)

    def probe_seconds(self, instance: str, seconds: float) -> None:
        """Keep how long the last probe of an instance took."""
        self._probe_seconds[instance] = seconds

    def render(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry for each scrape."""
        yield from self._instances()
        yield from self._host()
        yield from self._shim.history.metrics(self._shim.config.fleet)
        yield from call_metrics(self._shim.calls, self._shim.config.fleet, self._shim.config.host)
        yield from peer_metrics(self._shim.peering.peers, self._shim.config.fleet, self._shim.config.host)

    def _instances(self) -> Iterator[Metric]:
        shim = self._shim
        up = GaugeMetricFamily("outrider_instance_up", "1 if the instance passes its probes.", labels=INSTANCE_LABELS)
        restarts = CounterMetricFamily("outrider_instance_restarts", "Restarts by the shim.", labels=INSTANCE_LABELS)
        probe = GaugeMetricFamily("outrider_probe_seconds", "Seconds the last probe took.", labels=INSTANCE_LABELS)
        since = GaugeMetricFamily(
            "outrider_instance_status_since_seconds", "Unix time of the last status.", labels=INSTANCE_LABELS
        )
        epoch = GaugeMetricFamily("outrider_lease_epoch", "Of the lease it holds, 0 for none.", labels=INSTANCE_LABELS)
        for local in shim.locals.values():
            labels = [shim.config.fleet, shim.config.host, local.doc.name, local.instance]
            up.add_metric(labels, 1.0 if local.status in ("passing", "warning") else 0.0)
            restarts.add_metric(labels, local.restarts)
            since.add_metric(labels, local.since)
            if local.role != "replica":
                epoch.add_metric(labels, local.epoch)
            if local.instance in self._probe_seconds:
                probe.add_metric(labels, self._probe_seconds[local.instance])
        return iter((up, restarts, probe, since, epoch))

    def _host(self) -> Iterator[Metric]:
        shim = self._shim
        age = time.monotonic() - shim.confirmed_at if shim.confirmed_at else 0.0
        failsafe = float(shim.singletons.confirming.failsafe)
        gauges = {
            "outrider_lease_failsafe": ("1 while leases go on by leave of their members, without Consul.", failsafe),
            "outrider_consul_up": ("1 if Consul answers.", float(shim.reachable)),
            "outrider_catalogue_generation": ("Publications so far.", float(shim.publisher.generation)),
            "outrider_catalogue_age_seconds": ("Seconds since Consul confirmed the catalogue.", age),
            "outrider_catalogue_agents": ("Agents in the catalogue.", float(len(shim.publisher.entries))),
            "outrider_placer": ("1 if this shim decides where instances of lost hosts go.", float(shim.placer.elected)),
            "outrider_migrations_held": ("Migrations that a person must decide.", float(len(shim.migrations.held))),
            "outrider_unplaced": ("Instances that no host can take, at the placer.", float(len(shim.placer.stuck))),
        }
        for name, (text, value) in gauges.items():
            gauge = GaugeMetricFamily(name, text, labels=HOST_LABELS)
            gauge.add_metric([shim.config.fleet, shim.config.host], value)
            yield gauge
        counters = {
            "outrider_registration_writes": ("Registrations and checks sent to Consul.", shim.registrar.writes),
            "outrider_registration_escalations": ("Failures written past a Consul agent.", shim.registrar.escalations),
            "outrider_hung_killed": ("Instances killed because they hung.", shim.care.kills),
            "outrider_probes_doubted": ("Silences that lack of CPU explains, not counted.", shim.care.doubted),
        }
        for name, (text, count) in counters.items():
            counter = CounterMetricFamily(name, text, labels=HOST_LABELS)
            counter.add_metric([shim.config.fleet, shim.config.host], count)
            yield counter
        moves = CounterMetricFamily("outrider_moves", "Placements changed by this shim.", labels=[*HOST_LABELS, "why"])
        for why, number in shim.placer.counts.items():
            moves.add_metric([shim.config.fleet, shim.config.host, why], number)
        yield moves
        ended = CounterMetricFamily("outrider_migrations", "Ended by this shim.", labels=[*HOST_LABELS, "outcome"])
        for outcome, number in shim.migrations.counts.items():
            ended.add_metric([shim.config.fleet, shim.config.host, outcome], number)
        yield ended
