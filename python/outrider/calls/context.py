"""What travels with a call from agent to agent: the time that is left, and the trace it belongs to."""

from __future__ import annotations

import random
import re
from contextvars import ContextVar

# Of the call that is being worked on here: monotonic seconds at which nobody waits any more; W3C traceparent.
deadline: ContextVar[float | None] = ContextVar("outrider_deadline", default=None)
traceparent: ContextVar[str] = ContextVar("outrider_traceparent", default="")

_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})$")
# Seeded by the system; a trace id must be unlikely, not unguessable, and this costs a tenth.
_random = random.Random()


def next_traceparent() -> str:
    """For a call made now: a new span of the trace that is being worked on, else of a new trace."""
    above = traceparent.get()
    if above and _TRACEPARENT.match(above):  # what came in is looked at only where it is passed on
        return f"{above[:36]}{_random.getrandbits(64):016x}{above[52:]}"
    digits = f"{_random.getrandbits(192):048x}"
    return f"00-{digits[:32]}-{digits[32:]}-01"


def reseed() -> None:
    """In the child of a fork, which would else number its traces as its parent does."""
    _random.seed()
