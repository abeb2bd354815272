"""An agent with state: numbers that it keeps in memory until a checkpoint, and a file of $LEDGER_BYTES."""

from __future__ import annotations

import json
import os
import random
import tempfile
import threading
from pathlib import Path

import outrider

BLOCK = 4096

agent = outrider.Agent()
state = Path(os.environ.get("OUTRIDER_STATE") or tempfile.mkdtemp())
size = int(os.environ.get("LEDGER_BYTES", "0"))
numbers: set[int] = set()
lock = threading.Lock()


@agent.restore
def load() -> None:
    """What the folder holds."""
    numbers.clear()
    if (state / "numbers.json").exists():
        numbers.update(json.loads((state / "numbers.json").read_text()))


@agent.checkpoint
async def save() -> None:
    """Only now."""
    with (state / "saves").open("a") as file:
        file.write("saved\n")
    (state / "numbers.json").write_text(json.dumps(sorted(numbers)))


@agent.method
def add(number: int) -> dict[str, object]:
    """One more; a block of the first MiB of the file changes with it. A share of $LEDGER_FAILS fails."""
    if random.random() < float(os.environ.get("LEDGER_FAILS", "0")):
        raise RuntimeError("as it was told")
    with lock:
        numbers.add(number)
        if size:
            with (state / "data").open("r+b") as file:
                file.seek(number * BLOCK % min(size, 1 << 20))
                file.write(os.urandom(16))
    return {"instance": agent.instance, "epoch": agent.epoch}


@agent.method(idempotent=True)
def who() -> str:
    """Its name."""
    return agent.instance


@agent.method
def known() -> list[int]:
    """All of them."""
    return sorted(numbers)


@agent.method
def scribble() -> None:
    """Write to the state on and on, whatever happens: what an agent must not do."""

    def write() -> None:
        while True:
            (state / "scribbled").write_bytes(os.urandom(64))

    threading.Thread(target=write, daemon=True).start()


state.mkdir(exist_ok=True)
if size and not (state / "data").exists():
    (state / "data").write_bytes(os.urandom(size))
load()
agent.run()
