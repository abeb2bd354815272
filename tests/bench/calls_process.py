"""One process of bench-calls: `serve SYSTEM HOST FOLDER` tells its address; `call SYSTEM ADDRESS` obeys lines of JSON.

A line asks for callers, calls in all, and a bound in seconds; what answers it is one line of JSON too.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvloop
from calls_ours import OURS
from calls_peers import PEERS, Call, System, arguments

SYSTEMS = OURS | PEERS
MOST_CALLERS = 8


def told(address: str) -> None:
    """To the benchmark."""
    print(address, flush=True)


def repeat(call: Call, body: Any, asked: dict[str, Any]) -> list[float]:
    """Call one after the other; how long each took, in us."""
    clock, took_us = time.perf_counter_ns, []
    until = clock() + int(asked["seconds"] * 1e9)
    for _ in range(asked["calls"] // asked["callers"]):
        began = clock()
        call(body)
        ended = clock()
        took_us.append((ended - began) / 1000)
        if ended > until:
            break
    return took_us


async def repeat_async(call: Any, body: Any, asked: dict[str, Any]) -> list[float]:
    """`repeat` for coroutines."""
    clock, took_us = time.perf_counter_ns, []
    until = clock() + int(asked["seconds"] * 1e9)
    for _ in range(asked["calls"] // asked["callers"]):
        began = clock()
        await call(body)
        ended = clock()
        took_us.append((ended - began) / 1000)
        if ended > until:
            break
    return took_us


def call_threads(system: System, address: str) -> None:
    """Obey with threads; a single caller is this one."""
    one = system.connect(address)
    callers = [one, *(one if system.shared else system.connect(address) for _ in range(MOST_CALLERS - 1))]
    with ThreadPoolExecutor(MOST_CALLERS) as threads:
        for line in sys.stdin:
            asked = json.loads(line)
            body, began, cpu_s = arguments(asked["payload"], system.kind), time.perf_counter(), time.process_time()
            if asked["callers"] == 1:
                took_us = [repeat(one, body, asked)]
            else:
                used = callers[: asked["callers"]]
                took_us = list(threads.map(lambda call, b=body, a=asked: repeat(call, b, a), used))
            done(took_us, began, cpu_s)


async def call_tasks(system: System, address: str) -> None:
    """Obey with tasks of one loop."""
    call = await system.connect(address)
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        body, began, cpu_s = arguments(asked["payload"], system.kind), time.perf_counter(), time.process_time()
        took_us = await asyncio.gather(*(repeat_async(call, body, asked) for _ in range(asked["callers"])))
        done(took_us, began, cpu_s)


def done(took_us: Sequence[list[float]], began: float, cpu_s: float) -> None:
    """What was asked for: each call's time, the whole time, and this process's processor time."""
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    told(json.dumps({"took_us": [one for each in took_us for one in each], "seconds": seconds, "cpu_s": cpu_s}))


def main() -> None:
    """See above."""
    what, name, where, *folder = sys.argv[1:]
    system = SYSTEMS[name]
    if what == "serve":
        system.serve(where, Path(folder[0]), told)
    elif system.twin:
        uvloop.run(call_tasks(system, where))
    else:
        call_threads(system, where)


if __name__ == "__main__":
    main()
