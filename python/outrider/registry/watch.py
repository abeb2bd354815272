"""One blocking query after another in a thread: calls back when the content changed, and tells how contact is."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping

from msgspec import Struct

from outrider.errors import ConsulError
from outrider.registry.client import Consul, Reply

log = logging.getLogger("outrider.watch")

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
# Consul answers at most this often; a watch that wakes without end must not spin.
MIN_GAP_S = 0.002


class Contact(Struct, frozen=True):
    """How the last query went. `at` is monotonic seconds."""

    ok: bool
    known_leader: bool
    error: str
    at: float


def next_index(old: int, new: int) -> int:
    """The index to wait on after an answer: from the start if it went back (a restore does that), never 0."""
    if new < old:
        return 0
    return max(new, 1)


def backoff_s(failures: int, rng: random.Random) -> float:
    """Full jitter, so that the hosts of a fleet do not all come back in the same instant."""
    return rng.uniform(0, min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(failures, 10)))


class Watch:
    """Watches `path`. Both callbacks run in the watch's own thread.

    The wait is short (10 s) because wake-ups have been lost in past versions: what was missed heals. An answer is no
    promise of a change, so the body is compared before `on_change` is called.
    """

    def __init__(
        self,
        consul: Consul,
        path: str,
        *,
        on_change: Callable[[Reply], None],
        on_contact: Callable[[Contact], None] | None = None,
        params: Mapping[str, str] | None = None,
        wait_s: float = 10.0,
        rng: random.Random | None = None,
        name: str = "",
    ) -> None:
        self._consul = consul
        self._path = path
        self._on_change = on_change
        self._on_contact = on_contact or (lambda _: None)
        self._params = dict(params or {})
        self._wait_s = wait_s
        self._rng = rng or random.Random()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {name or path}", daemon=True)

    def start(self) -> None:
        """Start the thread; the first answer calls `on_change`."""
        self._thread.start()

    def stop(self) -> None:
        """No callback follows. The thread is a daemon and ends with its query, at the latest after the wait."""
        self._stopping.set()

    def _run(self) -> None:
        index, seen, failures = 0, None, 0
        while not self._stopping.is_set():
            try:
                # The first question after trouble does not block: it shows at once how things are.
                wait_s = self._wait_s if index else None
                reply = self._consul.get(self._path, index=index or None, wait_s=wait_s, params=self._params)
            except ConsulError as error:
                failures += 1
                self._tell(Contact(ok=False, known_leader=False, error=error.message, at=time.monotonic()))
                index = 0
                self._stopping.wait(backoff_s(failures, self._rng))
                continue
            failures = 0
            self._tell(Contact(ok=True, known_leader=reply.known_leader, error="", at=time.monotonic()))
            index = next_index(index, reply.index)
            content = (reply.status, reply.body)
            if content != seen:
                seen = content
                if not self._stopping.is_set():
                    self._on_change(reply)
            self._stopping.wait(MIN_GAP_S)

    def _tell(self, contact: Contact) -> None:
        if not self._stopping.is_set():
            self._on_contact(contact)
