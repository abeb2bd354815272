"""The probes of one instance over time: often until it is ready, then at their intervals, and one verdict."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from outrider.fleet.spec import Probe
from outrider.host.placeholders import main_port
from outrider.host.probers import Clock, Done, HeartbeatProber, Prober, ProbeResult, Target
from outrider.host.socket_probers import HttpProber, TcpProber
from outrider.host.task_probers import CommandProber, ZmqProber

__all__ = ["Done", "ProbeLoop", "ProbeResult", "Prober", "Target", "port_of", "prober_of"]

QUICK_S = 0.1  # between probes of a process that was never ready
LESS_QUICK_S = 0.2  # and once it takes long
QUICK_FOR_S = 5.0
SLOT_S = 0.05
GOLDEN = (math.sqrt(5) - 1) / 2

OnResult = Callable[[str, bool, str], None]
OnLatency = Callable[[str, float], None]

_turns = itertools.count()


def port_of(probe: Probe, ports: Mapping[str, int]) -> int:
    """The port to ask: the named one, else `health`, else the main one; 0 if there is none."""
    return ports.get(probe.port, 0) if probe.port else ports.get("health", 0) or main_port(ports)


def prober_of(probe: Probe, target: Target, clock: Clock = time.time) -> Prober:
    """The prober of a probe's type."""
    if probe.type == "heartbeat":
        return HeartbeatProber(probe, target, clock)
    kinds: dict[str, type[Prober]] = {"http": HttpProber, "tcp": TcpProber, "zmq": ZmqProber, "command": CommandProber}
    return kinds[probe.type](probe, target)


class ProbeLoop:
    """Asks until it is stopped. `on_result` is called with the first verdict and with each change of it.

    Unhealthy takes `failures` in a row of one probe; healthy takes one success of every probe.
    `on_latency` gets the seconds of each answer.
    """

    def __init__(
        self,
        instance: str,
        probes: Sequence[Probe],
        *,
        address: str,
        ports: Mapping[str, int],
        heartbeat: Path,
        on_result: OnResult,
        on_latency: OnLatency | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._instance = instance
        self._on_result = on_result
        self._on_latency = on_latency
        self._healthy: bool | None = None
        self._rounds = [
            _Round(prober_of(probe, _target(instance, probe, address, ports, heartbeat), clock), self._answered)
            for probe in probes
        ]

    def start(self) -> None:
        """Begin: quickly until the first success, then at the probes' own intervals."""
        for turn in self._rounds:
            turn.start()
        if not self._rounds:
            asyncio.get_running_loop().call_soon(self._decide)

    def stop(self) -> None:
        """End; no verdict follows."""
        self._on_result = _nobody
        for turn in self._rounds:
            turn.stop()

    def _answered(self, result: ProbeResult) -> None:
        if result.ok and self._on_latency:
            self._on_latency(self._instance, result.seconds)
        self._decide()

    def _decide(self) -> None:
        ill = next((turn for turn in self._rounds if turn.healthy is False), None)
        if ill is None and any(turn.healthy is None for turn in self._rounds):
            return
        healthy = ill is None
        if healthy is not self._healthy:
            self._healthy = healthy
            self._on_result(self._instance, healthy, ill.detail if ill else "")


class _Round:
    """One probe of the instance and when it is asked next."""

    def __init__(self, prober: Prober, answered: Done) -> None:
        self.healthy: bool | None = None
        self.detail = ""
        self._prober = prober
        self._answered = answered
        self._failures = 0
        self._ready = False
        self._loop = asyncio.get_running_loop()
        self._began = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        # Multiples of the golden ratio fall evenly into [0, 1) however many there are, so probes do not bunch; but
        # the loop wakes up once for all of a slot (77 agents asked twice a second: 1.2 % of a core instead of 2.9 %).
        spread_s = next(_turns) * GOLDEN % 1.0 * prober.probe.interval_s
        self._phase = math.floor(spread_s / SLOT_S) * SLOT_S

    def start(self) -> None:
        self._began = self._loop.time()
        self._ask()

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._prober.close()

    def _ask(self) -> None:
        self._prober.begin(self._done)

    def _done(self, result: ProbeResult) -> None:
        """Plan the next one first: whoever hears of the verdict may stop us."""
        probe = self._prober.probe
        self._failures = 0 if result.ok else self._failures + 1
        if result.ok:
            self.healthy, self.detail = True, ""
        elif self._failures >= probe.failures:
            self.healthy, self.detail = False, result.detail
        self._ready = self._ready or result.ok
        self._timer = self._loop.call_at(self._next(), self._ask)
        self._answered(result)

    def _next(self) -> float:
        now, interval_s = self._loop.time(), self._prober.probe.interval_s
        # uvloop counts whole milliseconds, so a timer may fire before its time: that turn is over nevertheless.
        over = max(now, self._due + interval_s / 2)
        if not self._ready:
            quick_s = QUICK_S if now - self._began < QUICK_FOR_S else LESS_QUICK_S
            return now + min(quick_s, interval_s)
        self._due = (math.floor((over - self._phase) / interval_s) + 1) * interval_s + self._phase
        return self._due


def _target(instance: str, probe: Probe, address: str, ports: Mapping[str, int], heartbeat: Path) -> Target:
    return Target(instance, address, port_of(probe, ports), dict(ports), heartbeat)


def _nobody(instance: str, healthy: bool, detail: str) -> None:
    """Hears verdicts after the end."""
