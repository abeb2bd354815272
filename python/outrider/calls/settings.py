"""Every number of the calls, in one place."""

from __future__ import annotations

from msgspec import Struct


class Settings(Struct, frozen=True):
    """How a client calls. The defaults suit agents that answer within milliseconds to seconds.

    timeout_s: of a call that names none
    attempts: of one call at most, the first included
    retry_budget: retries for each call to an agent, on average; None lifts the bound
    window_s: the time that failures and slow calls are counted over
    minimum_calls: in the window before their rates say anything
    failure_rate: of the window's calls at which the circuit opens
    slow_rate: of the window's calls at which it opens because they are slow
    slow_share: of its timeout that a call may take before it is slow
    consecutive: failures in a row that open the circuit, however few calls there are
    open_s: from a circuit's opening to its first trial; doubles with each failed one
    max_open_s: what that never exceeds where a trial cannot be repeated elsewhere
    quick_open_s: what it never exceeds where it can
    trials: calls let through at one time by a half-open circuit
    successes: trials in a row that close it
    max_ejected: share of an agent's instances that circuits may keep from it; one always may
    slow_start_s: in which a new instance comes to its full share
    latency_s: time constant of an instance's recent latency
    absent_s: a call waits for an instance to come, or for a circuit to close, if there was one within this time
    vacant_s: the same for the only holder of a singleton, whose place another takes
    """

    timeout_s: float = 2.0
    attempts: int = 3
    retry_budget: float | None = 0.1
    window_s: float = 2.0
    minimum_calls: int = 10
    failure_rate: float = 0.5
    slow_rate: float = 0.8
    slow_share: float = 0.5
    consecutive: int = 5
    open_s: float = 0.1
    max_open_s: float = 30.0
    quick_open_s: float = 0.8
    trials: int = 2
    successes: int = 2
    max_ejected: float = 0.5
    slow_start_s: float = 5.0
    latency_s: float = 0.15
    absent_s: float = 2.0
    vacant_s: float = 8.0
