"""Going on without Consul: the holder asks every other member of its lease, and each promises to wait or does not.

An answer that says yes is a promise not to take the lease until it has run out and its holder had the time to stop. The
holder counts from when it asked, the others from when they answered, so that none takes it too early.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import msgspec

from outrider.failover.confirm import Promised

KIND = "lease"
TIMEOUT_S = 0.25
PAYLOAD_BYTES = 900

Wanted = dict[str, tuple[str, int]]
Promise = Callable[[str, str, int, float], bool]


class Asked(Protocol):
    """What is needed of the peers."""

    async def ask(self, kind: str, payload: bytes, hosts: Iterable[str], timeout_s: float) -> dict[str, bytes]:
        """Their answers by host, of those that answered in time."""
        ...

    def answer(self, kind: str, handler: Callable[[str, bytes], bytes | None]) -> None:
        """Answer their questions."""
        ...


class Failsafe:
    """Both sides. `promise`: agent, holder, epoch, now -> whether nobody here takes that lease meanwhile."""

    def __init__(self, peers: Asked, promise: Promise) -> None:
        self._peers = peers
        self._promise = promise
        peers.answer(KIND, self._asked)

    async def ask_members(self, wanted: Mapping[str, tuple[str, int]], hosts: frozenset[str]) -> Promised:
        """For each host the agents whose holders it lets go on. A host that does not answer lets none."""
        chunks = list(_chunks(wanted))
        answers = await asyncio.gather(
            *(self._peers.ask(KIND, msgspec.msgpack.encode(chunk), hosts, TIMEOUT_S) for chunk in chunks)
        )
        promised: dict[str, set[str]] = {host: set() for host in hosts}
        for answer in answers:
            for host, body in answer.items():
                with contextlib.suppress(msgspec.MsgspecError):
                    promised[host].update(msgspec.msgpack.decode(body, type=list[str]))
        return {host: frozenset(agents) for host, agents in promised.items()}

    def _asked(self, host: str, payload: bytes) -> bytes | None:
        try:
            wanted = msgspec.msgpack.decode(payload, type=Wanted)
        except msgspec.MsgspecError:
            return None
        now = time.monotonic()
        return msgspec.msgpack.encode(
            [agent for agent, (holder, epoch) in wanted.items() if self._promise(agent, holder, epoch, now)]
        )


def _chunks(wanted: Mapping[str, tuple[str, int]]) -> Iterator[Wanted]:
    """As much as one datagram holds at a time."""
    chunk: Wanted = {}
    size = 0
    for agent, claim in sorted(wanted.items()):
        length = len(msgspec.msgpack.encode((agent, claim)))
        if chunk and size + length > PAYLOAD_BYTES:
            yield chunk
            chunk, size = {}, 0
        chunk[agent] = claim
        size += length
    if chunk:
        yield chunk
