"""A singleton that serves calls: each accepted one is a line `monotonic_ns epoch instance` in the file $COUNTER_LOG."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import outrider

agent = outrider.Agent()
log = Path(os.environ["COUNTER_LOG"])


@agent.method(idempotent=True)
def add() -> dict[str, object]:
    epoch = agent.epoch
    with log.open("a") as file:
        file.write(f"{time.monotonic_ns()} {epoch} {agent.instance}\n")
    return {"epoch": epoch, "instance": agent.instance}


@agent.method
def hold(s: float) -> int:
    """Work that cannot be stopped."""
    began("hold")
    time.sleep(s)
    return agent.epoch


@agent.method
async def linger(s: float) -> int:
    """Work that can."""
    began("linger")
    await asyncio.sleep(s)
    return agent.epoch


def began(method: str) -> None:
    with log.with_suffix(".began").open("a") as file:
        file.write(f"{method}\n")


agent.run()
