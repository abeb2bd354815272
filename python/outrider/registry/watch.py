"""One blocking query after another in a thread: calls back when the content changed, and tells how contact is."""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec import Struct

from outrider.errors import ConsulError
from outrider.registry.client import WAIT_MAX_S, Consul, Reply
from outrider.registry.line import Line
from outrider.registry.pace import Bucket, backoff_s

T = TypeVar("T")
log = logging.getLogger("outrider.watch")

# A watch that wakes without end must neither spin here nor wear Consul down; 50 changes in a row still pass at once.
RATE_PER_S = 20.0
BURST = 50
# How long one question waits while Consul replaces its store. It wakes a watch as a snapshot restore begins, with the
# old content; the next question then waits in vain for an index that the restored store has not reached.
RESTORE_WAIT_S = 0.5
# The longest pause after a failure where another agent can be asked: it is not the one to be spared.
QUICK_S = 0.2
# What `stop` waits at most: a connection that is being opened cannot be cut.
STOP_S = 2.0


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


class Watch:
    """Watches `path`. Both callbacks run in the watch's own thread; what they raise is logged, and the watch goes on.

    The wait is short (10 s) because wake-ups have been lost in past versions: what was missed heals. An answer is no
    promise of a change, so the content is compared before `on_change` is called. `by_index`: what changed need not show
    in the content, so the index is compared too. `late_s`: how late an answer may be, and the first twice that; then
    another is asked, without a pause that grows.
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
        by_index: bool = False,
        late_s: float | None = None,
    ) -> None:
        self._consul = consul
        self._path = path
        self._on_change = on_change
        self._on_contact = on_contact or (lambda _: None)
        self._params = dict(params or {})
        self._wait_s = min(wait_s, WAIT_MAX_S)
        self._late_s = late_s
        self._rng = rng or random.Random()
        self._name = name or path
        self._by_index = by_index
        self._line = consul.http.line()
        self._line_lock = threading.Lock()
        self._doubted = False
        self._pace = Bucket(RATE_PER_S, BURST)
        self._seen = b""
        self._restore_until = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {self._name}", daemon=True)

    def start(self) -> None:
        """Start the thread; the first answer calls `on_change`."""
        self._thread.start()

    def stop(self) -> None:
        """Cut the query short and wait for the thread: no callback follows. May be called from a callback."""
        self._stopping.set()
        with self._line_lock:
            self._line.cut()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(STOP_S)

    def ask_again(self) -> None:
        """Ask anew: what is asked now may hang, unnoticed, on a server that is lost. May be called from any thread."""
        with self._line_lock:
            self._doubted = True
            self._line.cut()

    def _run(self) -> None:
        index, failures = 0, 0
        while not self._stopping.wait(self._pace.take(time.monotonic())):
            asked_at = time.monotonic()
            wait_s = min(self._wait_s, RESTORE_WAIT_S) if asked_at < self._restore_until else self._wait_s
            reply = self._ask(index, wait_s)
            if isinstance(reply, str):
                index = 0
                if self._was_doubted():
                    continue
                failures += 1
                self._call(self._on_contact, Contact(False, False, reply, time.monotonic()))
                pause_s = backoff_s(failures, self._rng)
                self._stopping.wait(pause_s if self._late_s is None else min(pause_s, QUICK_S))
                continue
            failures = 0
            if index and reply.index <= index and time.monotonic() < asked_at + wait_s:
                self._restore_until = asked_at + self._wait_s
            index = next_index(index, reply.index)
            self._call(self._on_contact, Contact(True, reply.known_leader, "", time.monotonic()))
            self._compare(reply)
        self._line.close()

    def _ask(self, index: int, wait_s: float) -> Reply | str:
        """The answer, or why there is none. The first question, also after trouble, does not block."""
        timeout_s = None
        if self._late_s is not None:
            # Consul adds up to a sixteenth of the wait so that watchers do not all return together.
            timeout_s = self._late_s + (wait_s * 17 / 16 if index else self._late_s)
        try:
            return self._consul.get(
                self._path,
                index=index or None,
                wait_s=wait_s,
                timeout_s=timeout_s,
                params=self._params,
                line=self._current_line(),
            )
        except ConsulError as error:
            return error.message
        except Exception as error:
            # A thread that died here would leave its host with an old picture that looks fresh.
            log.exception("watch %s failed", self._name)
            return repr(error)

    def _current_line(self) -> Line:
        """A cut one is replaced, unless it was cut to stop, and so is one to an agent that is not to be asked now."""
        with self._line_lock:
            if not self._stopping.is_set():
                self._line = self._consul.http.line(self._line)
            return self._line

    def _was_doubted(self) -> bool:
        with self._line_lock:
            doubted, self._doubted = self._doubted, False
            return doubted

    def _compare(self, reply: Reply) -> None:
        """Call back if the content is new. Only its hash is kept: the body may be megabytes."""
        salt = str(reply.status if not self._by_index else reply.index).encode()[-16:]
        content = hashlib.blake2b(reply.body, salt=salt).digest()
        if content != self._seen:
            self._seen = content
            self._call(self._on_change, reply)

    def _call(self, callback: Callable[[T], None], value: T) -> None:
        if self._stopping.is_set():
            return
        try:
            callback(value)
        except Exception:
            log.exception("watch %s: its callback failed", self._name)
