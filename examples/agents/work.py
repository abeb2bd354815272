"""A real, bounded computation for POST /work: how many primes there are below n."""

from __future__ import annotations

import time

from wire import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_N = 2_000_000


def work(document: dict[str, Any]) -> dict[str, Any]:
    """`n` (default 10,000) in; n, result and ms out. Raises Refused."""
    n = document.get("n", 10_000)
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= MAX_N:
        raise Refused(422, f"n is {n!r}: a whole number from 0 to {MAX_N} is expected")
    began = time.perf_counter()
    return {"n": n, "result": primes_below(n), "ms": round((time.perf_counter() - began) * 1000, 3)}


def primes_below(n: int) -> int:
    """Sieve of Eratosthenes, one byte a number."""
    if n < 3:
        return 0
    sieve = bytearray([1]) * n
    sieve[:2] = b"\0\0"
    for i in range(2, int(n**0.5) + 1):
        if sieve[i]:
            sieve[i * i :: i] = bytes(len(range(i * i, n, i)))
    return sum(sieve)
