"""A singleton that does not use the library and knows of no lease: it works without end, and so does its child.

Each line of $OUTRIDER_STATE/work: the monotonic time in nanoseconds, and which process of which instance worked then,
named by when it was started: both do so for as long as nobody ends them.
"""

from __future__ import annotations

import os
import time

PAUSE_S = 0.02


def main() -> None:
    run = f"{os.environ['OUTRIDER_INSTANCE']}@{os.environ['OUTRIDER_HOST']}:{time.monotonic_ns()}"
    is_child = os.fork() == 0
    work = os.open(os.path.join(os.environ["OUTRIDER_STATE"], "work"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    while True:
        os.write(work, f"{time.monotonic_ns()} {run}\n".encode())
        if not is_child:
            os.utime(os.environ["OUTRIDER_HEARTBEAT"])
        time.sleep(PAUSE_S)


main()
