"""A lock that excludes two runs at once, and says who holds it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from types import TracebackType

from msgspec import Struct, json

from outrider.errors import ConsulError, Locked
from outrider.registry.client import Consul
from outrider.registry.kv import get_doc

TTL_S = 15.0  # Consul frees the lock of a run that died after twice this
RENEW_S = 5.0


class Holder(Struct, frozen=True):
    """The lock's value: who holds it, on which host, in which process, since when (Unix seconds)."""

    who: str
    host: str
    pid: int
    since: float


class RunLock:
    """`with RunLock(consul, key, who):` raises Locked at once if another run holds it."""

    def __init__(self, consul: Consul, key: str, who: str) -> None:
        self._consul = consul
        self._key = key
        self._holder = Holder(who, socket.gethostname(), os.getpid(), time.time())
        self._session = ""
        self._done = threading.Event()
        self.lost = False

    def __enter__(self) -> RunLock:
        self._session = self._consul.create_session(self._key, ttl_s=TTL_S, lock_delay_s=0.001)
        body = self._consul.put(f"/v1/kv/{self._key}", json.encode(self._holder), params={"acquire": self._session})
        if body.strip() != b"true":
            self._destroy()
            raise self._locked()
        threading.Thread(target=self._renew, name="lock renewal", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        with contextlib.suppress(ConsulError):
            self._consul.put(f"/v1/kv/{self._key}", b"{}", params={"release": self._session})
        self._destroy()

    def check(self) -> None:
        """Raise Locked if the lock was lost meanwhile: another run may be at work."""
        if self.lost:
            raise Locked(f"the lock {self._key} was lost: Consul did not hear from this run in time")

    def _renew(self) -> None:
        while not self._done.wait(RENEW_S):
            try:
                self._consul.put(f"/v1/session/renew/{self._session}")
            except ConsulError as error:
                if error.status == 404:
                    self.lost = True
                    return

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
            hint=f"wait for it to end; if it died, the lock is free again within {2 * TTL_S:g} s",
        )
