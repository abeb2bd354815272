"""A singleton with state: it counts, and writes down each count that it accepts before it answers."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TextIO

import outrider

agent = outrider.Agent()
journal: list[TextIO] = []


@agent.restore
def reopen() -> None:
    """The file is another instance's, once a migration has moved the state."""
    while journal:
        journal.pop().close()
    journal.append((Path(os.environ["OUTRIDER_STATE"]) / "accepted").open("a", buffering=1))


@agent.method(quick=True)
def count(token: str) -> dict[str, object]:
    """Accept one count. It is not to be repeated: who repeats it counts twice."""
    epoch = agent.epoch
    accepted = {"token": token, "epoch": epoch, "instance": agent.instance, "at_ns": time.monotonic_ns()}
    journal[0].write(json.dumps(accepted) + "\n")
    return accepted


@agent.method(idempotent=True, quick=True)
def who() -> dict[str, object]:
    """Who holds the lease, and under which epoch."""
    return {"instance": agent.instance, "host": os.environ["OUTRIDER_HOST"], "epoch": agent.epoch}


reopen()
agent.run()
