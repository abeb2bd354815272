"""How much of the observed time each agent was there: that at least one instance of it was served to callers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct, field

from outrider.observe.events import Seen

log = logging.getLogger("outrider.events")

HOUR_S = 3600
HOURS_KEPT = 31 * 24
WINDOWS_H = {"1 h": 1, "24 h": 24, "7 d": 7 * 24, "30 d": 30 * 24}
# Longer between two looks, nobody knows what was in between.
BLIND_S = 5.0


class Share(Struct, array_like=True):
    """Seconds that an agent was observed in, and of those the ones in which it was there."""

    observed_s: float = 0.0
    up_s: float = 0.0

    @property
    def value(self) -> float | None:
        """From 0 to 1; None if it was never observed."""
        return self.up_s / self.observed_s if self.observed_s else None


class Ledger(Struct):
    """By hour since 1970 and agent."""

    hours: dict[int, dict[str, Share]] = field(default_factory=dict)


class Uptime:
    """Adds up from look to look. Not observed is time without a shim or Consul, and an agent stopped on purpose."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "uptime.json"
        self._ledger = Ledger()
        self._up: dict[str, bool] = {}
        self._at: float | None = None
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self._ledger = msgspec.json.decode(self._path.read_bytes(), type=Ledger)
        self._ever = {agent for agents in self._ledger.hours.values() for agent in agents}

    def look(self, picture: Iterable[Seen], now: float, monotonic: float, *, observing: bool) -> None:
        """What was so since the last look is counted; what is so now counts from here. `now`: Unix seconds."""
        self.count(now, monotonic)
        there = _up(picture) if observing else {}
        self._ever.update(agent for agent, up in there.items() if up)
        # One that starts for the first time is not away yet.
        self._up = {agent: up for agent, up in there.items() if agent in self._ever}

    def count(self, now: float, monotonic: float) -> None:
        """Nothing has changed since the last look."""
        lasted_s = monotonic - self._at if self._at is not None else 0.0
        self._at = monotonic
        if not 0.0 < lasted_s <= BLIND_S:
            return
        hour = self._ledger.hours.setdefault(int(now // HOUR_S), {})
        for agent, up in self._up.items():
            share = hour.setdefault(agent, Share())
            share.observed_s += lasted_s
            share.up_s += lasted_s if up else 0.0

    def shares(self, hours: int, now: float) -> dict[str, Share]:
        """Of each agent over the last `hours`, the one that is under way included."""
        first = int(now // HOUR_S) - hours + 1
        sums: dict[str, Share] = {}
        for hour, agents in self._ledger.hours.items():
            if hour >= first:
                for agent, share in agents.items():
                    total = sums.setdefault(agent, Share())
                    total.observed_s += share.observed_s
                    total.up_s += share.up_s
        return sums

    def up(self) -> Mapping[str, bool]:
        """Whether each agent is there now."""
        return self._up

    def save(self, now: float) -> None:
        """Forget what is old, and write the rest. A disk that is full loses it at the next start, and that is said."""
        oldest = int(now // HOUR_S) - HOURS_KEPT
        self._ledger.hours = {hour: agents for hour, agents in self._ledger.hours.items() if hour > oldest}
        scratch = self._path.with_suffix(".tmp")
        try:
            scratch.write_bytes(msgspec.json.encode(self._ledger))
            scratch.replace(self._path)
        except OSError as error:
            log.error("uptime is not kept on disk: %s: %s", self._path, error.strerror)


def fleet_share(shares: Mapping[str, Share]) -> Share:
    """Over all agents: each second of each agent counts alike."""
    return Share(sum(share.observed_s for share in shares.values()), sum(share.up_s for share in shares.values()))


def _up(picture: Iterable[Seen]) -> dict[str, bool]:
    up: dict[str, bool] = {}
    for seen in picture:
        if seen.status != "stopped":
            up[seen.agent] = up.get(seen.agent, False) or seen.serves
    return up
