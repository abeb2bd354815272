"""Makes Consul say what is true on this host: a closed loop, because a 200 from the Consul agent proves nothing.

Each instance has a wanted Service. What was never sent, or differs, is sent; what is unchanged is not (every identical
registration is a raft write). A failure must come back on our own watch within 300 ms, or it is written past the local
Consul agent, whose check API hangs for half a minute on a frozen leader. An audit every ten seconds finds a Consul
agent that was wiped, and services nobody wants.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import TypeVar

from outrider.errors import ConsulError
from outrider.registry import services
from outrider.registry.client import Consul
from outrider.registry.layout import SHIM, TAG
from outrider.registry.services import CheckState, NotRegistered, Service

T = TypeVar("T")
log = logging.getLogger("outrider.registrar")

ECHO_S = 0.3
WRITE_TIMEOUT_S = 1.0
AUDIT_S = 10.0
RETRY_S = 1.0
WORKERS = 4
CHECK_PREFIX = "outrider:"  # of an instance's check
HOST_CHECK = SHIM
HOST_CHECK_TTL_S = 3.0


def same_definition(one: Service, other: Service) -> bool:
    """True if registering `one` over `other` would change nothing but a check's status."""
    return (one.name, one.address, one.port, sorted(one.tags), one.meta) == (
        other.name,
        other.address,
        other.port,
        sorted(other.tags),
        other.meta,
    )


def kind_of(output: str) -> str:
    """What an output says before its colon: died, exited, probe, starting, stopped, ok."""
    return output.partition(":")[0]


class Registrar:
    """Keeps the registrations of one host true. Methods run on the event loop; Consul is called in threads."""

    def __init__(
        self, consul: Consul, executor: Executor, host: str, critical: Callable[[], Iterable[CheckState]]
    ) -> None:
        self._consul = consul
        self._executor = executor
        self._host = host
        self._critical = critical
        self._wanted: dict[str, Service] = {}
        self._sent: dict[str, Service] = {}
        self._dirty: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._sending: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._background: set[asyncio.Task[None]] = set()
        self._mistaken: set[str] = set()
        self.complete = False  # True once everything this host should run is wanted; only then is the rest removed
        self.writes = 0
        self.escalations = 0

    def start(self) -> None:
        """Start the workers and the audit. Call `audit` once before, so that a new shim repeats no registration."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._work(), name=f"registrar {n}") for n in range(WORKERS)]
        self._tasks.append(loop.create_task(self._audit_forever(), name="registrar audit"))

    async def stop(self) -> None:
        """Stop without deregistering: the instances go on and so do their registrations."""
        for task in (*self._tasks, *self._background):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def want(self, service: Service) -> None:
        """Register `service`, or bring its registration and check up to date."""
        if self._wanted.get(service.id) != service:
            self._wanted[service.id] = service
            self._enqueue(service.id)

    def unwant(self, service_id: str) -> None:
        """Deregister it."""
        if self._wanted.pop(service_id, None) or service_id in self._sent:
            self._enqueue(service_id)

    async def settled(self, timeout_s: float) -> bool:
        """Wait until everything wanted was sent. False if that took too long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._dirty.join()
        except TimeoutError:
            return False
        return self._sent == self._wanted

    async def take_host_out(self, reason: str) -> None:
        """One write that makes every instance of this host critical."""
        await self._call(lambda: services.maintenance(self._consul, True, reason))

    async def put_host_back(self) -> None:
        """Undo `take_host_out`."""
        await self._call(lambda: services.maintenance(self._consul, False, ""))

    async def beat(self) -> None:
        """Say that the shim lives. While that is unchanged it costs no raft write."""
        try:
            await self._call(lambda: services.pass_check(self._consul, HOST_CHECK, timeout_s=WRITE_TIMEOUT_S))
        except NotRegistered:
            register = services.register_node_check
            await self._call(lambda: register(self._consul, HOST_CHECK, "Outrider shim", HOST_CHECK_TTL_S))
            await self._call(lambda: services.pass_check(self._consul, HOST_CHECK, timeout_s=WRITE_TIMEOUT_S))
            await self.audit()

    def _enqueue(self, service_id: str) -> None:
        if service_id not in self._queued:
            self._queued.add(service_id)
            self._dirty.put_nowait(service_id)

    async def _work(self) -> None:
        while True:
            service_id = await self._dirty.get()
            self._queued.discard(service_id)
            try:
                # Two writes about one service on their way at once may arrive in either order.
                if service_id not in self._sending:
                    await self._send_in_turn(service_id)
            except Exception:
                log.exception("%s: a defect while registering it", service_id)
                asyncio.get_running_loop().call_later(RETRY_S, self._enqueue, service_id)
            finally:
                self._dirty.task_done()

    async def _send_in_turn(self, service_id: str) -> None:
        self._sending.add(service_id)
        try:
            await self._send(service_id)
        except NotRegistered:
            self._sent.pop(service_id, None)
        except ConsulError as error:
            log.debug("%s: %s", service_id, error.message)
            await self._escalate(service_id)
            asyncio.get_running_loop().call_later(RETRY_S, self._enqueue, service_id)
            return
        finally:
            self._sending.discard(service_id)
        if self._wanted.get(service_id) != self._sent.get(service_id):  # wanted otherwise while it was sent
            self._enqueue(service_id)

    async def _send(self, service_id: str) -> None:
        """One write, or two for a status that changed along with the definition; none if all was sent before."""
        wanted, sent = self._wanted.get(service_id), self._sent.get(service_id)
        if wanted is None:
            await self._call(lambda: services.deregister(self._consul, service_id))
            self._sent.pop(service_id, None)
            return
        if sent is None or not same_definition(wanted, sent):
            await self._call(lambda: services.register(self._consul, wanted, timeout_s=WRITE_TIMEOUT_S))
            self.writes += 1
        if sent is None or (wanted.status, wanted.output) != (sent.status, sent.output):
            await self._set_check(wanted)
        if sent is not None and wanted.status == sent.status and kind_of(wanted.output) != kind_of(sent.output):
            # The Consul agent passes a new output on after minutes, while the status stays; others decide by it now.
            await self._write_to_catalog(wanted)
        self._sent[service_id] = wanted
        if wanted.status == "critical" and sent is not None and sent.status != "critical":
            task = asyncio.get_running_loop().create_task(self._expect_echo(wanted))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _set_check(self, service: Service) -> None:
        self.writes += 1
        await self._call(
            lambda: services.set_check(
                self._consul, service.check_id, service.status, service.output, timeout_s=WRITE_TIMEOUT_S
            )
        )

    async def _expect_echo(self, service: Service) -> None:
        """A failure that was reported must appear on our own watch; if not, it is written another way."""
        await asyncio.sleep(ECHO_S)
        still_wanted = self._wanted.get(service.id)
        if still_wanted is None or still_wanted.status != "critical":
            return
        if not any(check.check_id == service.check_id for check in self._critical()):
            await self._escalate(service.id)

    async def _escalate(self, service_id: str) -> None:
        """Write a failure straight into the catalog: that works while the local Consul agent's check API hangs."""
        service = self._wanted.get(service_id)
        if service is None or service.status != "critical" or service_id not in self._sent:
            return
        self.escalations += 1
        try:
            await self._write_to_catalog(service)
        except ConsulError as error:
            log.debug("%s: the catalog does not take its failure either: %s", service_id, error.message)
            return
        log.warning("%s: its failure did not come back within 300 ms and was written to the catalog", service_id)

    async def correct(self) -> None:
        """Once a second: what the catalog calls critical although it is well here for a while is written there again.

        A failure that was written past the Consul agent may arrive after the recovery that the agent passed on; the
        agent itself would see that after a minute or two.
        """
        mistaken = {
            check.service_id
            for check in self._critical()
            if check.node == self._host and self._is_well(check.service_id) and check.check_id.startswith(CHECK_PREFIX)
        }
        for service_id in mistaken & self._mistaken:
            log.warning("%s: the catalog still called it critical and was corrected", service_id)
            await self._write_to_catalog(self._wanted[service_id])
        self._mistaken = mistaken - self._mistaken

    def _is_well(self, service_id: str) -> bool:
        wanted = self._wanted.get(service_id)
        return wanted is not None and wanted.status != "critical" and self._sent.get(service_id) == wanted

    async def _write_to_catalog(self, service: Service) -> None:
        self.writes += 1
        await self._call(
            lambda: services.escalate(
                self._consul, self._host, service.check_id, service.id, service.status, service.output
            )
        )

    async def _audit_forever(self) -> None:
        while True:
            await asyncio.sleep(AUDIT_S)
            try:
                await self.audit()
            except ConsulError as error:
                log.debug("audit: %s", error.message)
            except Exception:
                log.exception("a defect in the audit; the next one follows")

    async def audit(self) -> None:
        """Compare with what the Consul agent holds: send what it lost, remove what nobody wants."""
        held = await self._call(lambda: services.local_services(self._consul))
        lost = [service_id for service_id in self._sent if service_id not in held]
        for service_id in lost:
            del self._sent[service_id]
        if any(service_id in self._wanted for service_id in lost):
            log.warning("the Consul agent lost %d services of this host; they are registered again", len(lost))
        for service in held.values():
            if service.id in self._wanted or (TAG in service.tags and service.meta.get("host") == self._host):
                # What an earlier shim registered and is still right needs no write.
                self._sent.setdefault(service.id, service)
        for service_id in self._sent.keys() | self._wanted.keys():
            unwanted = service_id not in self._wanted
            if (unwanted and self.complete) or (
                not unwanted and self._sent.get(service_id) != self._wanted[service_id]
            ):
                self._enqueue(service_id)

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)
