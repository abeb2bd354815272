"""The probes of one instance over time: often until it is ready, then at their intervals, and one verdict.

A hang is found within interval + failures x time-out: who fails is asked again as soon as the failed question's time is
over, not at its next turn. Silence that a `Silences` does not believe (the shim itself had no CPU) is not counted.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from outrider.fleet.ports import CALL
from outrider.fleet.spec import Probe
from outrider.host.call_prober import CallProber
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
LASTING_S = 10.0  # a port that refuses this long is as good as silent; a server that opens it anew is quicker

KINDS: dict[str, type[Prober]] = {
    "http": HttpProber,
    "tcp": TcpProber,
    "zmq": ZmqProber,
    "command": CommandProber,
    "call": CallProber,
}

OnResult = Callable[[str, bool, str], None]
OnLatency = Callable[[str, float], None]

_turns = itertools.count()


class Silences(Protocol):
    """Who hears of instances that give no answer."""

    def silent(self, instance: str, asked_at: float) -> bool:
        """A question of monotonic time `asked_at` had no answer. False if that says nothing about the instance."""
        ...

    def hung(self, instance: str, detail: str) -> None:
        """It was silent often enough in a row, and may be killed. Told again with each further silence."""
        ...

    def answered(self, instance: str) -> None:
        """It was silent and is not any more."""
        ...


class Credulous:
    """Believes each silence and does nothing about it: for what is asked without a host around it."""

    def silent(self, instance: str, asked_at: float) -> bool:
        """Believed, always."""
        return True

    def hung(self, instance: str, detail: str) -> None:
        """Nothing."""

    def answered(self, instance: str) -> None:
        """Nothing."""


def port_of(probe: Probe, ports: Mapping[str, int]) -> int:
    """The port to ask: the named one, else `health`, else the main one; 0 if there is none."""
    if probe.type == "call" and not probe.port:
        return ports.get(CALL, 0)
    return ports.get(probe.port, 0) if probe.port else ports.get("health", 0) or main_port(ports)


def prober_of(probe: Probe, target: Target, clock: Clock = time.time) -> Prober:
    """The prober of a probe's type."""
    if probe.type == "heartbeat":
        return HeartbeatProber(probe, target, clock)
    return KINDS[probe.type](probe, target)


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
        agent: str = "",
        runtime: Path = Path(),
        on_result: OnResult,
        on_latency: OnLatency | None = None,
        silences: Silences | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._instance = instance
        self._silences = silences or Credulous()
        self._on_result = on_result
        self._on_latency = on_latency
        self._healthy: bool | None = None
        self._rounds = [
            _Round(
                prober_of(
                    probe,
                    Target(instance, address, port_of(probe, ports), dict(ports), heartbeat, agent, runtime),
                    clock,
                ),
                self._answered,
                self._silences,
            )
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
        self._silences = Credulous()
        for turn in self._rounds:
            turn.stop()

    def _answered(self, turn: _Round, result: ProbeResult) -> None:
        if result.ok and self._on_latency:
            self._on_latency(self._instance, result.seconds)
        self._decide()
        if turn.hung:
            self._silences.hung(self._instance, turn.detail)

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

    def __init__(self, prober: Prober, answered: Callable[[_Round, ProbeResult], None], silences: Silences) -> None:
        self.healthy: bool | None = None
        self.detail = ""
        self._prober = prober
        self._answered = answered
        self._silences = silences
        self._failures = 0
        self._silent = 0
        self._refused_since = math.inf
        self._asked_at = 0.0
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

    @property
    def hung(self) -> bool:
        """Whether it gave no answer at all, twice in a row at least, so that killing it is due."""
        probe = self._prober.probe
        return probe.hang == "kill" and self._silent >= max(2, probe.failures)

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        self._prober.begin(self._done)

    def _done(self, result: ProbeResult) -> None:
        """Plan the next one first: whoever hears of the verdict may stop us."""
        probe = self._prober.probe
        silent = self._is_silence(result)
        if silent and not self._silences.silent(self._prober.target.instance, self._asked_at):
            self._timer = self._loop.call_at(self._next(), self._ask)
            return
        if self._silent and not silent:
            self._silences.answered(self._prober.target.instance)
        self._silent = self._silent + 1 if silent else 0
        self._failures = 0 if result.ok else self._failures + 1
        if result.ok:
            self.healthy, self.detail = True, ""
        elif self._failures >= probe.failures:
            self.healthy, self.detail = False, result.detail
        self._ready = self._ready or result.ok
        self._timer = self._loop.call_at(self._next(), self._ask)
        self._answered(self, result)

    def _is_silence(self, result: ProbeResult) -> bool:
        """Also a refusal that lasts: the process lives, and nobody serves its port."""
        if result.kind != "refusal":
            self._refused_since = math.inf
            return result.kind == "silence"
        self._refused_since = min(self._refused_since, self._asked_at)
        return time.monotonic() - self._refused_since >= LASTING_S

    def _next(self) -> float:
        turn, again = self._next_turn(), self._next_try()
        if again < turn:
            return again
        self._due = turn
        return turn

    def _next_try(self) -> float:
        """When one that failed and has no verdict yet is asked again: as soon as that question's time is over."""
        if self.healthy and 0 < self._failures < self._prober.probe.failures:
            left_s = self._asked_at + self._prober.probe.timeout_s - time.monotonic()
            return self._loop.time() + max(0.0, left_s)
        return math.inf

    def _next_turn(self) -> float:
        now, interval_s = self._loop.time(), self._prober.probe.interval_s
        # uvloop counts whole milliseconds, so a timer may fire before its time: that turn is over nevertheless.
        over = max(now, self._due + interval_s / 2)
        if not self._ready:
            quick_s = QUICK_S if now - self._began < QUICK_FOR_S else LESS_QUICK_S
            return now + min(quick_s, interval_s)
        return (math.floor((over - self._phase) / interval_s) + 1) * interval_s + self._phase


def _nobody(instance: str, healthy: bool, detail: str) -> None:
    """Hears verdicts after the end."""
