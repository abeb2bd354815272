"""Damaged and random bytes into the frame decoder: python tests/bench/frames_fuzz.py [COUNT]. No crash, no growth.

Prints how many inputs were taken, refused and how memory went; exit status 1 if anything else than a refusal came out.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from outrider.calls import arrays, frames
from outrider.calls.frames import FrameReader, Hello, Refusal, Reply, Request, Welcome, from_agent, from_caller
from outrider.errors import FrameError

LIMIT = 1 << 20
GROWTH_MIB = 16.0
Side = Callable[[Any], object]
SIDES: tuple[Side, ...] = (from_caller, from_agent)


def seeds() -> list[bytes]:
    """Frames that are right."""
    vector = np.arange(64, dtype="f4")
    bodies = [{}, {"a": 1, "b": [None, "x", 2.5]}, {"v": vector, "w": {"x": vector[::2]}}, {"data": b"x" * 500}]
    made = [frames.encode(Hello(frames.VERSION, "Echo", "me"))]
    made += [frames.encode(Request(7, "say", 500_000, "", 0, body)) for body in bodies]  # type: ignore[arg-type]
    made += [frames.encode(Reply(7, 3, body)) for body in bodies]  # type: ignore[arg-type]
    made += [
        frames.encode(Welcome(frames.VERSION, "Echo", "Echo-1", ("say",))),
        frames.encode(Refusal(7, 0, "failed", "no")),
    ]
    return [b"".join(parts) for parts in made]


def damaged(rng: random.Random, good: list[bytes]) -> bytes:
    """Random bytes, or a frame with some bytes changed, cut or repeated."""
    if rng.random() < 0.2:
        return rng.randbytes(rng.randrange(200))
    data = bytearray(rng.choice(good))
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.3:
        del data[rng.randrange(len(data)) :]
    return bytes(data * rng.choice((1, 1, 1, 2)))


def feed(data: bytes, side: Side) -> str:
    """What the side that it is meant for makes of it: taken, waiting for more, or why it was refused."""
    reader, count = FrameReader(LIMIT), 0
    try:
        for view, buffers in reader.feed(data):
            message = side(view)
            count += 1
            if isinstance(message, Request | Reply):
                arrays.decode(frames.untyped, message.body, buffers)
    except (FrameError, msgspec.MsgspecError, ValueError, TypeError) as error:
        return f"refused: {type(error).__name__}"
    return "taken" if count else "waits for more"


def main() -> int:
    """Feed them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng, good = random.Random(args.seed), seeds()
    found: Counter[str] = Counter(feed(damaged(rng, good), rng.choice(SIDES)) for _ in range(args.count // 10))
    gc.collect()
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for _ in range(args.count - args.count // 10):
        found[feed(damaged(rng, good), rng.choice(SIDES))] += 1
    grown_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mib
    for what, count in found.most_common():
        print(f"{count:>9,}  {what}")
    print(f"{args.count:,} inputs, memory grew by {grown_mib:.1f} MiB after the first tenth (seed {args.seed})")
    return int(grown_mib > GROWTH_MIB)


if __name__ == "__main__":
    sys.exit(main())
