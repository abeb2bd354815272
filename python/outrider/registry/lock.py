"""A lock that excludes two runs at once, and says who holds it."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import socket
import threading
import time
from types import TracebackType

from msgspec import MsgspecError, Struct, json

from outrider.errors import ConsulError, ConsulUnreachable, Locked
from outrider.registry.client import Consul, decode
from outrider.registry.kv import Guard, get_doc

log = logging.getLogger("outrider.lock")

TTL_S = 15.0  # Consul frees the lock of a run that died after twice this
RENEW_S = 5.0


class Holder(Struct, frozen=True):
    """The lock's value: who holds it, on which host, in which process, since when (Unix seconds)."""

    who: str
    host: str
    pid: int
    since: float


class _Pair(Struct):
    Session: str = ""
    ModifyIndex: int = 0
    Value: str | None = None


class RunLock:
    """`with RunLock(consul, key, who):` raises Locked at once if another run holds it.

    `lost` turns true when the lock is not surely ours any more; `check` raises then. Ask before each step.
    """

    def __init__(self, consul: Consul, key: str, who: str, *, ttl_s: float = TTL_S, renew_s: float = RENEW_S) -> None:
        self._consul = consul
        self._key = key
        self._who = who
        self._ttl_s, self._renew_s = ttl_s, renew_s
        self._session = ""
        self._sure_until = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lock renewal", daemon=True)
        self.lost = False

    def __enter__(self) -> RunLock:
        self._sure_until = time.monotonic() + self._ttl_s
        # The shortest delay there is: after a run that died, its time to live has passed already.
        self._session = self._consul.create_session(self._key, ttl_s=self._ttl_s, lock_delay_s=0.001)
        try:
            if not self._acquire():
                raise self._locked()
        except BaseException:
            self._destroy()
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        try:
            # Does nothing if the lock is another's by now.
            self._consul.put(f"/v1/kv/{self._key}", b"{}", params={"release": self._session})
        except ConsulError as problem:
            log.warning("the lock %s is not released, it ends by itself: %s", self._key, problem.message)
        self._destroy()

    @property
    def guard(self) -> Guard:
        """What fails a transaction once the lock is not ours, also if nobody noticed yet."""
        return Guard(self._key, session=self._session)

    def check(self) -> None:
        """Raise Locked if the lock was lost meanwhile: another run may be at work."""
        if self.lost or time.monotonic() > self._sure_until:
            self.lost = True
            raise Locked(
                f"the lock {self._key} was lost: Consul did not hear from this run in time, or someone took it",
                hint="another run may be at work; run again",
            )

    def _acquire(self) -> bool:
        holder = Holder(self._who, socket.gethostname(), os.getpid(), time.time())
        try:
            body = self._consul.put(f"/v1/kv/{self._key}", json.encode(holder), params={"acquire": self._session})
        except ConsulUnreachable:
            # A write without an answer may have been done.
            return self._ours()
        return body.strip() == b"true"

    def _keep(self) -> None:
        while not self._done.wait(self._renew_s):
            sent = time.monotonic()
            try:
                self._consul.put(f"/v1/session/renew/{self._session}")
                if self._ours():
                    self._sure_until = sent + self._ttl_s
                else:
                    self.lost = True
            except ConsulError as error:
                if self._done.is_set():
                    return
                # Any other failure may pass, but not for longer than Consul waits.
                self.lost = error.status == 404 or time.monotonic() > self._sure_until
            if self.lost:
                return

    def _ours(self) -> bool:
        """Whether the key is held by our session: a renewal succeeds also when someone deleted or stole the key."""
        reply = self._consul.get(f"/v1/kv/{self._key}", params={"consistent": ""})
        pairs = decode(reply.body, list[_Pair]) if reply.body else []
        return any(pair.Session == self._session for pair in pairs)

    def _destroy(self) -> None:
        with contextlib.suppress(ConsulError):
            self._consul.put(f"/v1/session/destroy/{self._session}")

    def _locked(self) -> Locked:
        try:
            holder, _ = get_doc(self._consul, self._key, Holder)
        except ConsulError:
            holder = None
        if holder is None:
            return Locked(f"another run holds the lock {self._key}", hint="wait for it to end and run again")
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
        return Locked(
            f"another run is at work: {holder.who} on {holder.host} (pid {holder.pid}) since {since}",
            hint=f"wait for it to end; if it died, the lock is free again within {2 * self._ttl_s:g} s",
        )


class LockState(Struct, frozen=True):
    """A lock as it is: `session` holds it, empty if nobody does; `index` is its key's, 0 if that is not there."""

    session: str = ""
    index: int = 0
    holder: Holder | None = None


def lock_state(consul: Consul, key: str) -> LockState:
    """Who holds a lock, as the leader knows it. Raises ConsulError."""
    reply = consul.get(f"/v1/kv/{key}", params={"consistent": ""})
    for pair in decode(reply.body, list[_Pair]) if reply.body else []:
        return LockState(pair.Session, pair.ModifyIndex, _holder(pair.Value))
    return LockState()


def _holder(value: str | None) -> Holder | None:
    try:
        return json.decode(base64.b64decode(value or ""), type=Holder)
    except (MsgspecError, ValueError):
        return None
