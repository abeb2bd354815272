"""Who decides: a lock in Consul that one shim holds for as long as it and its host are well.

A shim that was killed and is back goes on with the session that it had: what it was about waits for no time-out. One
that stands still, or whose host is lost, loses it with the first of `checks` that Consul finds critical.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import json

from outrider.errors import ConsulError
from outrider.failover.sight import GOSSIP
from outrider.registry.client import Consul
from outrider.registry.kv import Guard
from outrider.registry.layout import PLACEMENT
from outrider.registry.lock import Holder, lock_state

log = logging.getLogger("outrider.placer")

TTL_S = 15.0
RENEW_S = 5.0
RETRY_S = 0.5  # from one look at a lock that somebody else holds to the next
LOCK_DELAY_S = 2.0


class Election:
    """One candidate. Its methods block; call them from one thread at a time.

    Holding the lock is a hint: what makes two deciders impossible is that every write carries `guard`.
    """

    def __init__(
        self, consul: Consul, key: str, host: str, clock: Callable[[], float] = time.monotonic,
        checks: Sequence[str] = (GOSSIP,),
    ) -> None:  # fmt: skip
        self._consul = consul
        self._key = key
        self._host = host
        self._clock = clock
        self._checks = checks
        self._session = ""
        self._renewed_at = self._looked_at = float("-inf")
        self.holder = ""

    @property
    def is_ours(self) -> bool:
        """Whether this candidate was elected, as far as it knows."""
        return bool(self._session)

    @property
    def guard(self) -> Guard:
        """What fails any transaction of one who was elected and is no longer."""
        return Guard(self._key, session=self._session)

    def campaign(self) -> bool:
        """Keep the lock, or take it if it is free. True while it is ours. Raises ConsulError."""
        now = self._clock()
        if self._session:
            if now - self._renewed_at >= RENEW_S:
                self._renew(now)
            return self.is_ours
        if now - self._looked_at < RETRY_S:
            return False
        self._looked_at = now
        state = lock_state(self._consul, self._key)
        self.holder = state.holder.host if state.session and state.holder else ""
        if state.session and state.holder and self._is_predecessor(state.holder):
            self._session = state.session  # renewed with the next look, if it is still there
            log.info("this shim decides on, as the one before it on this host did")
            return True
        return not state.session and self._has_work() and self._take(now)

    def lose(self) -> None:
        """A write was refused, or Consul could not be asked: it may be another's."""
        if self._session:
            log.info("this shim does not place any more")
        session, self._session = self._session, ""
        with contextlib.suppress(ConsulError):
            if session:
                self._consul.put(f"/v1/session/destroy/{session}", timeout_s=1.0)

    def resign(self) -> None:
        """Give it up, so that another may take it without waiting."""
        with contextlib.suppress(ConsulError):
            if self._session:
                self._consul.put(f"/v1/kv/{self._key}", b"{}", params={"release": self._session}, timeout_s=1.0)
        self.lose()

    def _has_work(self) -> bool:
        """Whether anything is placed: a Consul that was wiped is left untouched until the fleet is published again."""
        return bool(self._consul.get(f"/v1/kv/{PLACEMENT}", params={"keys": ""}).body)

    def _is_predecessor(self, holder: Holder) -> bool:
        """Whether it was a shim of this host whose process has ended: it writes nothing any more."""
        return holder.host == self._host and holder.pid != os.getpid() and not Path(f"/proc/{holder.pid}").exists()

    def _take(self, now: float) -> bool:
        session = self._consul.create_session(
            self._key, ttl_s=TTL_S, lock_delay_s=LOCK_DELAY_S, node_checks=self._checks
        )
        value = json.encode(Holder("outriderd", self._host, os.getpid(), time.time()))
        try:
            won = self._consul.put(f"/v1/kv/{self._key}", value, params={"acquire": session}).strip() == b"true"
        except ConsulError:
            self._session = session
            self.lose()
            raise
        if not won:  # another was quicker, or the lock delay runs
            self._consul.put(f"/v1/session/destroy/{session}")
            return False
        self._session, self._renewed_at, self.holder = session, now, self._host
        log.info("this shim decides where lost instances go")
        return True

    def _renew(self, now: float) -> None:
        try:
            self._consul.put(f"/v1/session/renew/{self._session}")
            if lock_state(self._consul, self._key).session == self._session:
                self._renewed_at = now
                return
        except ConsulError as error:
            if error.status != 404 and now - self._renewed_at < TTL_S:
                raise
        self.lose()
