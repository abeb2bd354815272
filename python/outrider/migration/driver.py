"""Carries a rollout out: stage after stage, step after step, until every agent has arrived or one has failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from outrider.errors import ConsulConflict, ConsulDenied, ConsulError, Locked
from outrider.migration.changes import AgentChange, Documents, Goal
from outrider.migration.diff import summary
from outrider.migration.report import Report, failure, gave_up
from outrider.migration.situation import Done, Failed, Situation, Step, Write
from outrider.migration.stages import Stage, stages
from outrider.migration.steps import WELL, next_step
from outrider.migration.store import Seen

TICK_S = 0.5
# An election of Consul's servers takes some 3 s, up to 15 s at its default settings.
PATIENCE_S = 20.0
MAX_CONFLICTS = 10


class Store(Protocol):
    """What the driver needs of Consul."""

    docs: dict[str, Documents]

    def read(self) -> dict[str, Documents]:
        """Read all documents anew into `docs`."""

    def write(self, wanted: Mapping[str, Documents]) -> None:
        """Write by check-and-set against the last read."""

    def observe(self, hosts: set[str]) -> dict[tuple[str, str], Seen]:
        """Instances that Consul knows on these hosts."""

    def output(self, instance: str, host: str) -> str:
        """What an instance's check says this moment, if that can be known."""

    def wait(self, longest_s: float) -> None:
        """Wait for news."""


class Progress(Struct):
    """One agent on its way. `since`: when its documents were last written."""

    original: Documents
    since: float


class Driver:
    """One rollout. Use `run` once."""

    def __init__(self, store: Store, *, wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._wait_s = wait_s
        self._clock = clock
        self._well_since: dict[tuple[str, str, str], float] = {}
        self._failed: dict[str, Failed] = {}
        self._arrived: set[str] = set()
        self._trouble_since: float | None = None
        self._conflicts = 0
        self.report = Report()

    def run(self, found: Sequence[AgentChange], goals: Mapping[str, Goal], parallel: int) -> Report:
        """Bring every agent to its goal. Raises RolloutFailed after the first failure, ConsulError."""
        by_name = {change.name: change for change in found}
        for stage in stages(found, parallel):
            self._run_stage(stage, goals, by_name)
            if self._failed:
                raise failure(self._failed, by_name, self._arrived, self.report)
        return self.report

    def _run_stage(self, stage: Stage, goals: Mapping[str, Goal], found: Mapping[str, AgentChange]) -> None:
        waiting = list(stage.agents)
        active: dict[str, Progress] = {}
        while active or (waiting and not self._failed):
            while waiting and len(active) < stage.width and not self._failed:
                name = waiting.pop(0)
                active[name] = Progress(found[name].before, self._clock())
            try:
                steps = self._steps(active, goals)
                moved = self._act(steps, active, found)
                if not moved:
                    self._store.wait(TICK_S)
            except ConsulError as error:
                self._bear(error)
                continue
            self._trouble_since, self._conflicts = None, 0
            if moved and stage.together:
                # The hosts start only some at a time: who waits for a slot is not late.
                for progress in active.values():
                    progress.since = self._clock()

    def _steps(self, active: Mapping[str, Progress], goals: Mapping[str, Goal]) -> dict[str, Step]:
        docs, now = self._store.docs, self._clock()
        hosts = {slot.host for name in active for slot in goals[name].slots}
        for name, progress in active.items():
            both = (*progress.original.instances, *docs.get(name, Documents()).instances)
            hosts |= {placed.host for placed in both}
        sight = self._with_age(self._store.observe(hosts), now)
        return {
            name: next_step(
                Situation(
                    goals[name],
                    progress.original,
                    docs.get(name, Documents()),
                    sight,
                    now - progress.since,
                    self._wait_s,
                )
            )
            for name, progress in active.items()
        }

    def _with_age(self, sight: Mapping[tuple[str, str], Seen], now: float) -> dict[tuple[str, str], Seen]:
        """Add how long each has served; one that did not in between starts anew."""
        passing = {(*key, seen.version) for key, seen in sight.items() if seen.status in WELL}
        self._well_since = {key: self._well_since.get(key, now) for key in passing}
        return {
            key: replace(seen, well_s=now - self._well_since.get((*key, seen.version), now))
            for key, seen in sight.items()
        }

    def _act(self, steps: Mapping[str, Step], active: dict[str, Progress], found: Mapping[str, AgentChange]) -> bool:
        """Write what is to be written, all in one go; then take note. True if anything moved.

        Who has failed stays failed, also if Consul's answer to putting it back is lost.
        """
        for name, step in steps.items():
            if isinstance(step, Failed) and name not in self._failed:
                # Asked before the documents are put back: afterwards it says something else.
                why = self._store.output(step.instance, step.host) or step.why
                self._failed[name] = replace(step, why=why)
        failed = self._failed.keys() & active.keys()
        writes = {name: step.docs for name, step in steps.items() if isinstance(step, Write)}
        writes |= {name: active[name].original for name in failed}
        if writes:
            self._store.write(writes)
            self._store.read()
            for name in writes:
                active[name].since = self._clock()
        done = {name: step for name, step in steps.items() if isinstance(step, Done) and name not in failed}
        for name, step in done.items():
            self._note(found[name], step)
        for name in failed | done.keys():
            del active[name]
        return bool(writes or done)

    def _note(self, change: AgentChange, step: Done) -> None:
        self._arrived.add(change.name)
        self.report.operations.append(summary(change))
        self.report.restarted += change.restarts
        if step.left:
            still = ", ".join(step.left)
            self.report.warnings.append(f"{change.name}: Consul still lists {still}; the host's shim may be down")

    def _bear(self, error: ConsulError) -> None:
        """Another writer: read again and decide anew. Consul in trouble: be patient, but not for ever."""
        if isinstance(error, ConsulDenied | Locked):
            raise error
        now = self._clock()
        if isinstance(error, ConsulConflict):
            self._conflicts += 1
        elif self._trouble_since is None:
            self._trouble_since = now
        trouble_s = 0.0 if self._trouble_since is None else now - self._trouble_since
        if self._conflicts > MAX_CONFLICTS:
            raise error
        if trouble_s > PATIENCE_S:
            raise gave_up(error, trouble_s, len(self._arrived))
        try:
            self._store.wait(TICK_S)
            self._store.read()
        except ConsulDenied:
            raise
        except ConsulError:
            self._trouble_since = now if self._trouble_since is None else self._trouble_since
