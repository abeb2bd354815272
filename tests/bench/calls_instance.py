"""One instance of the agent `Bench`, a process of its own; each line of its standard input is how it fares from then.

`well`, `failing` (its methods raise), `hanging` (they never answer) or `slow`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from calls_ours import AGENT

from outrider.calls import Agent
from outrider.calls.endpoint import socket_path
from outrider.discovery.records import Instance

SLOW_S = 0.3


class Started:
    """Such a process, as the benchmark sees it."""

    def __init__(self, runtime: Path, name: str, *, concurrency: int = 16, queue: int = 64) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(runtime), name, str(concurrency), str(queue)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def fare(self, how: str) -> None:
        """From now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{how}\n")
        self._process.stdin.flush()

    def listed(self) -> Instance:
        """As the catalogue has it."""
        return Instance(AGENT, self.name, "host", "127.0.0.1", self.port, {"call": self.port})

    def end(self) -> None:
        """At once."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Serve until the standard input ends."""
    runtime, name, concurrency, queue = sys.argv[1:]
    agent = Agent(
        AGENT,
        instance=name,
        address="127.0.0.1",
        port=0,
        socket=socket_path(Path(runtime), name),
        concurrency=int(concurrency),
        queue=int(queue),
    )
    fares = "well"

    async def fare() -> str:
        if fares == "failing":
            raise RuntimeError("told to fail")
        if fares != "well":
            await asyncio.sleep(SLOW_S if fares == "slow" else 60)
        return name

    agent.method(name="read", idempotent=True)(fare)
    agent.method(name="write")(fare)

    @agent.method(idempotent=True)
    def burn(seconds: float) -> str:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass
        return name

    agent.start()
    print(agent.port, flush=True)
    for line in sys.stdin:
        fares = line.strip()


if __name__ == "__main__":
    main()
