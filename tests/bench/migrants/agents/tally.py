"""What bench-migration moves: it writes down each numbered call that it accepts, and changes a file of $BYTES with it.

A share of $FAILS of its calls fails, from $FAILS_AFTER_S after the first one on.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import outrider

BLOCK, CHANGED = 4096, 1 << 20

agent = outrider.Agent()
folder = os.environ.get("OUTRIDER_STATE")
size = int(os.environ.get("BYTES", "0"))
fails, fails_after_s = (float(os.environ.get(name, "0")) for name in ("FAILS", "FAILS_AFTER_S"))
files: list[int] = []
first = 0.0


@agent.restore
def load() -> None:
    """Open what the folder has now; without a folder the log tells what was accepted."""
    while files:
        os.close(files.pop())
    if not folder:
        return
    data = Path(folder, "data")
    if size and not data.exists():
        data.write_bytes(random.randbytes(size))
    files.append(os.open(Path(folder, "accepted"), os.O_CREAT | os.O_WRONLY | os.O_APPEND))
    if size:
        files.append(os.open(data, os.O_WRONLY))


@agent.method(quick=True)
def add(number: int) -> str:
    """Accept it. It is not to be repeated: who repeats it is found out."""
    global first
    first = first or time.monotonic()
    if fails and time.monotonic() - first >= fails_after_s and random.random() < fails:
        raise RuntimeError("as it was told")
    os.write(files[0] if folder else 1, f"{number}\n".encode())
    if size:
        os.pwrite(files[1], random.randbytes(16), number * BLOCK % CHANGED)
    return agent.instance


load()
agent.run()
