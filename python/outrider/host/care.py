"""Hung instances are killed, and doubt comes first: a shim or a host without CPU finds everybody silent.

Four guards stand between silence and SIGKILL, each for a way in which the silence may be ours:
- the shim's own loop was late while it waited: the probe is not counted at all;
- the process wanted a CPU and got none: the probe is not counted either;
- many of the host's instances are silent at once: that is the host; they leave routing, and nobody is killed;
- one kill in 250 ms, so that what none of these saw cannot take a whole host down in one moment.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from outrider.host.starvation import Usage, starved, usage_of

log = logging.getLogger("outrider.care")

AT_ONCE_S = 2.0  # silences within this time are one event
MASS_SHARE = 0.3
MASS_LEAST = 3
KILL_EVERY_S = 0.25
USAGE_OLD_S = 5.0  # silences further apart than this have nothing to do with each other

Clock = Callable[[], float]


class Patient(Protocol):
    """An instance that may be killed: its process."""

    @property
    def pid(self) -> int | None:
        """Of its process, None while it has none."""
        ...

    @property
    def grown_up(self) -> bool:
        """False while its process was never ready and may still be starting."""
        ...

    async def kill(self, why: str) -> None:
        """SIGKILL its process."""
        ...


class Silent:
    """Which instances were silent lately. Pure: each method is told the time."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def note(self, instance: str, now: float) -> None:
        """It gave no answer."""
        self._last[instance] = now

    def forget(self, instance: str) -> None:
        """Its process is gone, and so is what was known of it."""
        self._last.pop(instance, None)

    def mass(self, population: int, now: float) -> int:
        """How many were silent at once, if that is more than single instances do; else 0."""
        self._last = {name: at for name, at in self._last.items() if now - at <= AT_ONCE_S}
        number = len(self._last)
        return number if number >= MASS_LEAST and number > MASS_SHARE * population else 0


class Care:
    """Fills `Silences` of the probes. `patients`: the host's instances by name. All methods run on the event loop."""

    def __init__(
        self,
        patients: Callable[[], Mapping[str, Patient]],
        late_since: Callable[[float], bool],
        *,
        usage: Callable[[int, float], Usage] = usage_of,
        clock: Clock = time.monotonic,
    ) -> None:
        self._patients = patients
        self._late_since = late_since
        self._usage = usage
        self._clock = clock
        self._silent = Silent()
        self._seen: dict[str, tuple[int, Usage]] = {}
        self._due: dict[str, str] = {}
        self._next_kill = -math.inf
        self._mass_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._killing: set[asyncio.Task[None]] = set()
        self.kills = 0
        self.doubted = 0

    def silent(self, instance: str, asked_at: float) -> bool:
        """A question had no answer. False if the CPU was missing: here, or there."""
        if self._late_since(asked_at) or self._is_starved(instance):
            self.doubted += 1
            return False
        self._silent.note(instance, self._clock())
        return True

    def hung(self, instance: str, detail: str) -> None:
        """Kill it as soon as that is allowed; nobody is killed while many are silent at once."""
        self._due[instance] = detail
        self._plan()

    def answered(self, instance: str) -> None:
        """It was silent and is not any more."""
        self._due.pop(instance, None)

    def died(self, instance: str) -> None:
        """Its process is gone."""
        self._silent.forget(instance)
        self._due.pop(instance, None)
        self._seen.pop(instance, None)

    def stop(self) -> None:
        """Kill nobody any more."""
        if self._timer:
            self._timer.cancel()
        self._due.clear()

    def _is_starved(self, instance: str) -> bool:
        """Compares with the silence before; the first one has nothing to be compared with, and counts."""
        patient = self._patients().get(instance)
        pid, now = patient.pid if patient else None, self._clock()
        if pid is None:
            return False
        usage = self._usage(pid, now)
        known_pid, before = self._seen.get(instance, (0, usage))
        comparable = known_pid == pid and now - before.at < USAGE_OLD_S
        self._seen[instance] = pid, usage
        return comparable and starved(before, usage)

    def _plan(self) -> None:
        if self._due and self._timer is None:
            wait_s = max(0.0, self._next_kill - self._clock())
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._act)

    def _act(self) -> None:
        self._timer = None
        if not self._due:
            return
        now, patients = self._clock(), self._patients()
        population = sum(patient.pid is not None for patient in patients.values())
        if number := self._silent.mass(population, now):
            self._say_mass(number, population, now)
            self._due.clear()  # whoever stays silent is reported again
            return
        instance = next(iter(self._due))
        why = self._due.pop(instance)
        patient = patients.get(instance)
        if patient and patient.grown_up:
            self._next_kill = now + KILL_EVERY_S
            self._silent.forget(instance)
            self._start(patient.kill(why))
        self._plan()

    def _say_mass(self, number: int, population: int, now: float) -> None:
        if now - self._mass_at > AT_ONCE_S:
            note = "%d of %d instances are silent at once: that is this host rather than they, none is killed"
            log.warning(note, number, population)
        self._mass_at = now

    def _start(self, kill: Coroutine[Any, Any, None]) -> None:
        self.kills += 1
        task = asyncio.get_running_loop().create_task(kill)
        self._killing.add(task)
        task.add_done_callback(self._killed)

    def _killed(self, task: asyncio.Task[None]) -> None:
        self._killing.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a hung instance could not be killed", exc_info=error)
