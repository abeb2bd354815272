"""What a process tells its host's shim of its calls, in a datagram a second: counts since it began, and circuits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from outrider.calls.tally import Tally
    from outrider.calls.target import Peer

State = Literal["closed", "open", "half-open"]


def reports_socket(runtime: Path) -> Path:
    """Where the shim listens."""
    return runtime / "calls" / "reports"


class TallyReport(Struct, frozen=True, array_like=True):
    """Calls to one method. `outcomes`: by how they ended; `buckets`: by duration as tally.BOUNDS; `seconds`: in all."""

    agent: str
    method: str
    outcomes: dict[str, int]
    buckets: tuple[int, ...]
    seconds: float
    retries: int

    @classmethod
    def of(cls, agent: str, method: str, tally: Tally) -> TallyReport:
        """As it stands."""
        return cls(agent, method, dict(tally.outcomes), tuple(tally.buckets), tally.seconds, tally.retries)


class CircuitReport(Struct, frozen=True, array_like=True):
    """The circuit to one instance. `answered_s`: seconds since its last good answer."""

    agent: str
    instance: str
    state: State
    reason: str
    openings: int
    in_flight: int
    answered_s: float

    @classmethod
    def of(cls, peer: Peer) -> CircuitReport:
        """As it stands."""
        breaker = peer.breaker
        state: State = breaker.current_state  # type: ignore[assignment]
        return cls(
            peer.target.agent,
            peer.instance.instance,
            state,
            breaker.reason,
            breaker.openings,
            peer.in_flight,
            time.monotonic() - peer.latency_at,
        )


class Sample(Struct, frozen=True, array_like=True):
    """A call that failed or was slow. `at`: Unix seconds; `outcome`: ok or the error's kind."""

    at: float
    agent: str
    method: str
    outcome: str
    seconds: float
    trace: str


class ProcessReport(Struct, frozen=True, array_like=True):
    """One datagram."""

    caller: str
    pid: int
    tallies: tuple[TallyReport, ...]
    circuits: tuple[CircuitReport, ...]
    samples: tuple[Sample, ...]
