"""The lock that restarts of Consul agents take, so that one at a time is down whoever asks for it."""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.consul_http import ConsulError, Servers, retry, unpack

KEY = "kv/outrider/locks/consul-restart"
# Longer than the unit may take to stop and start, for nobody renews meanwhile.
TTL_S = 30
POLL_S = 0.5
FAILED_S = 600


class RestartLock:
    """`with RestartLock(consul, operator, host, wait_s):` raises ConsulError naming the holder after `wait_s`.

    `consul`: other servers than the one to restart. The session has no checks, so that the restart does not end it. A
    run that was killed holds the lock until the session's time is over, at most twice `TTL_S`, or until the same host
    is asked to restart again: there its process is seen to be gone.
    """

    def __init__(self, consul: Servers, operator: str, host: str, wait_s: float) -> None:
        self._consul, self._operator, self._host = consul, operator, host
        self._until = time.monotonic() + wait_s
        self._session = ""

    def __enter__(self) -> RestartLock:
        request = {"Name": "consul-restart", "TTL": f"{TTL_S}s", "NodeChecks": [], "LockDelay": "0s"}
        request["Behavior"] = "release"
        self._session = retry(lambda: self._consul.put("session/create", request), self._until)["ID"]
        try:
            before = self._acquire()
            if self._failed_in_this_run(before):
                self._write(before)
                raise ConsulError(
                    f"not restarted: in this run {before['failed']} did not come back with what is new; mend that first"
                )
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def renew(self) -> None:
        """Keep it while something is waited for. Servers may be without a leader for moments."""
        with contextlib.suppress(ConsulError):
            self._consul.put(f"session/renew/{self._session}")

    def is_held(self) -> bool:
        """Whether it still is this run's. Raises ConsulError."""
        return bool(self._read(consistent="")[0] == self._session)

    def mark_failed(self) -> None:
        """Further hosts of the same run are not restarted: what failed here would fail there."""
        with contextlib.suppress(ConsulError):
            self._write({**self._value(), "failed": self._host, "failed_at": time.time()})

    def _acquire(self) -> dict[str, Any]:
        """Returns what the last holder left."""
        renewed = time.monotonic()
        while True:
            session, before = retry(self._read, self._until)
            if session and self._is_left_over(before):
                retry(partial(self._consul.put, f"session/destroy/{session}"), self._until)
                session = ""
            if not session and retry(lambda: self._write(self._value()), self._until):
                return before
            if time.monotonic() >= self._until:
                raise ConsulError(f"another run restarts Consul agents: {_shown(before)}. Nothing was restarted.")
            if time.monotonic() - renewed > TTL_S / 6:
                self.renew()
                renewed = time.monotonic()
            time.sleep(POLL_S)

    def _failed_in_this_run(self, before: dict[str, Any]) -> bool:
        """`operator` need not tell runs apart, so this is forgotten after a while."""
        lately = abs(time.time() - before.get("failed_at", 0)) < FAILED_S
        return bool(before.get("failed")) and before.get("operator") == self._operator and lately

    def _is_left_over(self, value: dict[str, Any]) -> bool:
        """Whether it was taken on this host, by a process that is gone."""
        return value.get("host") == self._host and _process(value.get("pid", 0)) != value.get("process")

    def _value(self) -> dict[str, Any]:
        since, pid = time.strftime("%Y-%m-%dT%H:%M:%S%z"), os.getpid()
        return {
            "operator": self._operator,
            "host": self._host,
            "since": since,
            "pid": pid,
            "process": _process(pid),
        }

    def _write(self, value: dict[str, Any]) -> bool:
        return bool(self._consul.put(KEY, value, acquire=self._session))

    def _read(self, **query: str) -> tuple[str, dict[str, Any]]:
        """Session and value."""
        rows = self._consul.get(KEY, **query) or [{"Value": ""}]
        return rows[0].get("Session", ""), unpack(rows[0]) or {}

    def _end(self) -> None:
        with contextlib.suppress(ConsulError):
            self._consul.put(f"session/destroy/{self._session}")


def _process(pid: int) -> str:
    """What tells a process from a later one with the same number: boot and start time; "" if there is none."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {started}"
    except (OSError, IndexError):
        return ""


def _shown(value: dict[str, Any]) -> str:
    return f"{value.get('operator', 'unknown')}, on {value.get('host', '?')} since {value.get('since', '?')}"
