"""Every lease of the fleet, kept fresh: what Consul's watch says, and what was written here a moment ago."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path

from outrider.failover.memory import LeaseMemory
from outrider.registry import leases
from outrider.registry.client import Consul, Reply
from outrider.registry.leases import LEASES, Lease, LeaseDoc
from outrider.registry.watch import Watch

log = logging.getLogger("outrider.lease")
# How long a question for changes waits, and how late its answer may be before another Consul agent is asked. One that
# hangs on a server whose host is lost is known only by its end, and until then no lease is seen to be free: with 10 s a
# standby took over 11 s after a cut, with 1 s and an answer up to 2 s late 5 s after it.
WAIT_S, LATE_S = 1.0, 0.7


class LeaseView:
    """Lives on the event loop. `read` is false until Consul has answered; `changed` follows each of its answers."""

    def __init__(self, consul: Consul, executor: Executor, state_dir: Path, changed: Callable[[], None]) -> None:
        self.leases: dict[str, Lease] = {}
        self.read = False
        self._memory = LeaseMemory(state_dir)
        self._executor = executor
        self._changed = changed
        self._index = 0
        self._loop = asyncio.get_running_loop()
        path, params = f"/v1/kv/{LEASES}", {"recurse": ""}
        self._watch = Watch(
            consul, path, params=params, on_change=self._in_loop, name=LEASES, wait_s=WAIT_S, late_s=LATE_S
        )

    def start(self) -> None:
        """Begin to follow."""
        self._watch.start()

    async def stop(self) -> None:
        """Follow no more."""
        await asyncio.to_thread(self._watch.stop)

    def ask_again(self) -> None:
        """A host was lost: it may be the one that was to answer."""
        self._watch.ask_again()

    def is_free(self, agent: str) -> bool:
        """Whether nobody holds the lock, as far as Consul has told."""
        lease = self.leases.get(agent)
        return self.read and (lease is None or not lease.session)

    def last(self, agent: str) -> LeaseDoc | None:
        """What this host has ever seen of a lease, with its highest epoch."""
        return self._memory.last(agent)

    def wrote(self, lease: Lease) -> None:
        """Know what we wrote before the watch tells it; unless it has told already what somebody wrote after us."""
        known = self.leases.get(lease.doc.agent)
        if known is None or known.index <= lease.index:
            self.leases[lease.doc.agent] = lease

    def remember(self, docs: list[LeaseDoc]) -> None:
        """Keep them on disk; call it in a thread. A full disk costs what the next shim would know, no more."""
        try:
            self._memory.saw(docs)
        except OSError as error:
            log.warning("leases cannot be kept on disk: %s", error.strerror)

    def followed(self, found: Mapping[str, Lease], index: int) -> None:
        """What Consul says now. An answer that was on its way while we wrote is older than what we wrote."""
        restored = index < self._index
        merged = dict(found)
        for agent, known in self.leases.items():
            theirs = found.get(agent)
            if not restored and known.index > index and (theirs is None or theirs.index < known.index):
                merged[agent] = known
        news = [lease.doc for agent, lease in merged.items() if lease != self.leases.get(agent)]
        self._index, self.read, self.leases = index, True, merged
        if news:
            self._executor.submit(self.remember, news)
        self._changed()

    def _in_loop(self, reply: Reply) -> None:
        found, problems = leases.decode_leases(reply)
        for problem in problems:
            log.warning("a lease in Consul is not readable and is ignored: %s", problem)
        self._loop.call_soon_threadsafe(self.followed, found, reply.index)
