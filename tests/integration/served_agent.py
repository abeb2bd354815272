"""An agent that serves calls: served_agent.py NAME INSTANCE RUNTIME [PORT]. It prints its port once it serves."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import Any

import msgspec
import numpy as np

import outrider
from outrider.calls import context
from outrider.calls.endpoint import socket_path


class Point(msgspec.Struct):
    x: int
    y: int = 0


def main() -> None:
    name, instance, runtime, *port = sys.argv[1:]
    os.environ["OUTRIDER_RUNTIME"] = runtime
    from pathlib import Path

    path = socket_path(Path(runtime), instance)
    path.parent.mkdir(parents=True, exist_ok=True)
    agent = outrider.Agent(
        name,
        instance=instance,
        port=int(port[0]) if port else None,
        socket=None if port else path,
        concurrency=4,
        queue=4,
        max_frame=8 << 20,
    )
    serve(agent, instance)
    threading.Thread(target=say_port, args=(agent,), daemon=True).start()
    agent.run()


def serve(agent: outrider.Agent, instance: str) -> None:
    @agent.method(idempotent=True)
    async def echo(**document: Any) -> Any:
        return document

    @agent.method(idempotent=True)
    def who() -> dict[str, Any]:
        return {"instance": instance, "pid": os.getpid()}

    @agent.method
    def sleep(s: float) -> str:
        time.sleep(s)
        return instance

    @agent.method
    async def wait(s: float) -> str:
        await asyncio.sleep(s)
        return instance

    @agent.method(idempotent=True)
    async def wait_again(s: float) -> str:
        await asyncio.sleep(s)
        return instance

    @agent.method
    def add(point: Point) -> Point:
        return Point(point.x + 1, point.y + 1)

    @agent.method
    def total(vector: np.ndarray[Any, Any]) -> float:
        return float(vector.sum())

    @agent.method
    def fail() -> None:
        raise RuntimeError("as asked")

    @agent.method
    def refuse() -> None:
        raise outrider.CallRefused("not today")

    @agent.method
    def unsendable() -> object:
        return object()

    @agent.method
    def large(size: int) -> bytes:
        return b"x" * size

    @agent.method
    def left(agent: str = "") -> dict[str, Any]:
        """How much time this call has, and its trace; with an agent, what that says too."""
        until = context.deadline.get()
        found = {"left_s": (until or 0) - time.monotonic(), "trace": context.traceparent.get()}
        return {**found, "next": outrider.call(agent, "left", timeout=30.0)} if agent else found


def say_port(agent: outrider.Agent) -> None:
    agent._listening.wait()
    print(agent.port or 0, flush=True)


if __name__ == "__main__":
    main()
