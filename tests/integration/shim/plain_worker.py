"""A singleton that knows of no lease: works all the time, by its child as well, and says so in a file.

    python plain_worker.py

Each line of $WORK_LOG: the monotonic time, the host, and whether it is the agent or its child.
"""

from __future__ import annotations

import os
import time


def main() -> None:
    who = "agent" if os.fork() else "child"
    host = os.environ["OUTRIDER_HOST"]
    log = os.open(os.environ["WORK_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    heartbeat = os.environ["OUTRIDER_HEARTBEAT"]
    while True:
        os.write(log, f"{time.monotonic()} {host} {who}\n".encode())
        if who == "agent":
            os.utime(heartbeat)
        time.sleep(0.005)


if __name__ == "__main__":
    main()
