"""The history of the whole fleet as this shim sees it, looked at soon after every change."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from outrider.host.reports import EventRow, EventsReport, InstanceReport, UptimeReport, UptimeRow
from outrider.observe.events import Event, Seen, Teller
from outrider.observe.store import EventStore
from outrider.observe.uptime import WINDOWS_H, Share, Uptime, fleet_share

LOOK_S = 0.05  # changes that follow each other this closely are looked at together
SAVE_S = 60.0


class History:
    """`picture`: every instance that is placed anywhere; `reachable`: whether Consul answers."""

    def __init__(
        self,
        state_dir: Path,
        host: str,
        picture: Callable[[], Iterable[InstanceReport]],
        reachable: Callable[[], bool],
    ) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._host = host
        self._picture = picture
        self._reachable = reachable
        self._was_reachable = True
        self._store = EventStore(state_dir)
        self._uptime = Uptime(state_dir)
        self._teller = Teller()
        self._timer: asyncio.TimerHandle | None = None
        self._saved_at = time.monotonic()

    def start(self) -> None:
        """Begin to observe."""
        self._store.add([Event(time.time(), "observing", host=self._host, why="the shim started")])

    def noticed(self, report: InstanceReport) -> None:
        """An instance of this host changed."""
        self._tell(self._teller.look_at(_seen(report), time.time()))

    def changed(self) -> None:
        """Something may be otherwise: look soon."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self.look)

    def look(self) -> None:
        """Look now."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        now = time.time()
        seen = [_seen(report) for report in self._picture()]
        self._tell(self._teller.look(seen, now) if seen else [])
        self._uptime.look(seen, now, time.monotonic(), observing=self._reachable())

    def tick(self) -> None:
        """Once a second: time has passed, and Consul may have come or gone."""
        now, monotonic, reachable = time.time(), time.monotonic(), self._reachable()
        if reachable != self._was_reachable:
            self._was_reachable = reachable
            self._tell([Event(now, "consul back" if reachable else "consul lost", host=self._host)])
            self.look()
        self._uptime.count(now, monotonic)
        if monotonic - self._saved_at > SAVE_S:
            self._saved_at = monotonic
            self._uptime.save(now)

    def _tell(self, events: list[Event]) -> None:
        self._store.add(events)
        self.counts.update((event.agent, event.what) for event in events)

    def stop(self) -> None:
        """Keep everything."""
        if self._timer:
            self._timer.cancel()
        self._uptime.save(time.time())
        self._store.close()

    def events(self, name: str, what: frozenset[str], since: float, limit: int) -> EventsReport:
        """The last `limit` events since then, oldest first; of one agent, instance or host, and of those kinds."""
        chosen = [
            event
            for event in self._store.recent
            if event.at >= since
            and (not what or event.what in what)
            and (not name or name in (event.agent, event.instance, event.host))
        ]
        rows = (EventRow(e.at, e.what, e.agent, e.instance, e.host, e.why, e.epoch, e.lasted_s) for e in chosen)
        return EventsReport(tuple(rows)[-limit:])

    def uptime(self, agent: str) -> UptimeReport:
        """Shares of each agent in each window, and of the fleet."""
        now = time.time()
        windows = {name: self._uptime.shares(hours, now) for name, hours in WINDOWS_H.items()}
        longest = windows["30 d"]
        rows = [
            UptimeRow(name, {window: shares.get(name, Share()).value for window, shares in windows.items()},
                      longest[name].observed_s, longest[name].observed_s - longest[name].up_s)
            for name in sorted(longest) if agent in ("", name)
        ]  # fmt: skip
        fleet = {window: fleet_share(shares).value for window, shares in windows.items()}
        return UptimeReport(fleet, tuple(rows))

    def metrics(self, fleet: str) -> Iterator[Metric]:
        """Of events and of uptime."""
        labels = ["fleet", "host", "agent"]
        total = CounterMetricFamily("outrider_events", "Changes that this shim saw.", labels=[*labels, "what"])
        for (agent, what), count in self.counts.items():
            total.add_metric([fleet, self._host, agent, what], count)
        up = GaugeMetricFamily("outrider_agent_up", "1 if callers have an instance to call.", labels=labels)
        for agent, there in self._uptime.up().items():
            up.add_metric([fleet, self._host, agent], float(there))
        yield from (total, up)


def _seen(report: InstanceReport) -> Seen:
    return Seen(report.agent, report.instance, report.host, report.status, report.role, report.epoch, report.detail)
