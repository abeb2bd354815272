"""The Consul session of this host's shim: what its leases are locked by. One for all of them, kept over restarts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from outrider.errors import ConsulError
from outrider.registry import leases
from outrider.registry.client import Consul

log = logging.getLogger("outrider.lease")

RENEW_S = 5.0
RETRY_S = 0.25


class HostSession:
    """`id` is empty while there is none. `begun` is called on the event loop with each new one.

    The session ends when Consul finds the host dead (serfHealth), or when nobody renews it. A service's check does not
    end it: the shim itself releases the lease of an instance that dies, in any order with setting its check.
    """

    def __init__(
        self, consul: Consul, executor: Executor, host: str, state_dir: Path, begun: Callable[[], None]
    ) -> None:
        self.id = ""
        self._consul = consul
        self._executor = executor
        self._host = host
        self._path = state_dir / "session"
        self._begun = begun
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        with contextlib.suppress(OSError):
            self.id = self._path.read_text().strip()

    def start(self) -> None:
        """Keep one from now on."""
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="consul session")

    def stop(self) -> None:
        """Leave it as it is: the next shim takes it over."""
        if self._task:
            self._task.cancel()

    def ended(self, session: str) -> None:
        """Consul says that it is over: another is made at once."""
        if session == self.id:
            self.id = ""
            self._over.set()

    async def _keep(self) -> None:
        while True:
            self._over.clear()
            try:
                await self._renew() if self.id else await self._create()
                pause_s = RENEW_S
            except ConsulError as error:
                if error.status == 404 and self.id:
                    log.warning("Consul ended the session of this host: its leases are taken anew")
                    self.id = ""
                    continue
                log.debug("session: %s", error.message)
                pause_s = RETRY_S
            except Exception:
                log.exception("a defect while keeping the session; it is tried again")
                pause_s = RETRY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._over.wait()

    async def _renew(self) -> None:
        session = self.id
        await asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: leases.renew_session(self._consul, session)
        )

    async def _create(self) -> None:
        self.id = await asyncio.get_running_loop().run_in_executor(self._executor, self._made)
        self._begun()

    def _made(self) -> str:
        session = leases.create_session(self._consul, self._host)
        with contextlib.suppress(OSError):  # a full disk: then the next shim makes one of its own
            self._path.write_text(session)
            self._path.chmod(0o600)
        return session
