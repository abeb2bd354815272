"""Local ports, for agents that nobody will change: HAProxy forwards them, and this tells it where to.

The role `agents` gives HAProxy a listener for every agent that the host's agents need, each with spare servers that
point nowhere. Here they are pointed at the instances of the catalogue, over HAProxy's runtime API. An instance keeps
its server, so connections stay where they are; one that leaves has its connections closed, so that its callers come
back and get another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from outrider.discovery.records import Entry

log = logging.getLogger("outrider.shim")

# Servers of this name are for instances of this host; all others are backups of theirs.
NEAR = "near"
# Bits of srv_admin_state: by order, by inheritance. A server that the configuration says is disabled keeps a third
# bit for ever, also when it was made ready.
MAINTENANCE = 0x01 | 0x02
TICK_S = 1.0
TIMEOUT_S = 2.0


class Slot(Struct, frozen=True):
    """One server of HAProxy: `agent` is its backend; it is ready or in maintenance."""

    agent: str
    name: str
    address: str
    port: int
    ready: bool


def read_slots(state: str) -> list[Slot]:
    """From what `show servers state` prints: a version, the names of the columns, and a line for each server."""
    lines = state.splitlines()
    columns = next((line[1:].split() for line in lines if line.startswith("#")), [])
    slots = []
    for line in lines:
        row = dict(zip(columns, line.split(), strict=False))
        if "srv_port" in row and not line.startswith("#"):
            ready = not int(row["srv_admin_state"]) & MAINTENANCE
            slots.append(Slot(row["be_name"], row["srv_name"], row["srv_addr"], int(row["srv_port"]), ready))
    return slots


def orders(slots: Iterable[Slot], entries: Mapping[str, Entry], host: str) -> list[str]:
    """What to tell HAProxy so that its servers are the instances of the catalogue; nothing if they are."""
    alike: dict[tuple[str, bool], list[Slot]] = {}
    for slot in slots:
        alike.setdefault((slot.agent, slot.name.startswith(NEAR)), []).append(slot)
    told: list[str] = []
    for (agent, near), own in alike.items():
        told += _orders(own, wanted(entries.get(agent), host, near=near))
    return told


def wanted(entry: Entry | None, host: str, *, near: bool) -> list[tuple[str, int]]:
    """Where connections may go, on this host or on the others, best first.

    Whoever is in the routing set, also in panic: HAProxy finds out by itself who refuses. A standby serves nobody, and
    one that gives its callers no answers only counts while nobody else is there.
    """
    serving = [i for i in entry.instances if i.port and i.role != "standby"] if entry else []
    chosen = [i for i in serving if not i.ill] or serving
    return [(i.address, i.port) for i in chosen if (i.host == host) == near]


def _orders(slots: list[Slot], places: list[tuple[str, int]]) -> Iterator[str]:
    """Of servers that are alike: who leaves first, so that there is room for who comes."""
    free, left = [], dict.fromkeys(places)
    for slot in slots:
        where = f"{slot.agent}/{slot.name}"
        if slot.ready and (slot.address, slot.port) in left:
            del left[slot.address, slot.port]
            continue
        if slot.ready:
            yield f"set server {where} state maint"
            yield f"shutdown sessions server {where}"
        free.append(where)
    for where, (address, port) in zip(free, left, strict=False):
        yield f"set server {where} addr {address} port {port}"
        yield f"set server {where} state ready"


class LocalPorts:
    """Keeps HAProxy's servers as the catalogue is. Without HAProxy it waits for one; its troubles are never ours.

    state_file: what HAProxy was told last, for the one that is started or reloaded next
    trouble: why HAProxy cannot be told; empty if it can
    """

    def __init__(self, socket: Path, state_file: Path, entries: Callable[[], Mapping[str, Entry]], host: str) -> None:
        self._socket = socket
        self._state_file = state_file
        self._entries = entries
        self._host = host
        self._woken = asyncio.Event()
        self.trouble = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="local ports")

    async def stop(self) -> None:
        """HAProxy goes on with what it was told."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def news(self) -> None:
        """The catalogue is another."""
        self._woken.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._reconcile()
                self._say("")
            except (OSError, ValueError, KeyError) as error:
                self._say(f"HAProxy at {self._socket} cannot be told who serves: {error or type(error).__name__}")
            with contextlib.suppress(TimeoutError):
                # A HAProxy that was restarted has forgotten everything.
                async with asyncio.timeout(TICK_S):
                    await self._woken.wait()
            self._woken.clear()

    async def _reconcile(self) -> None:
        told = orders(read_slots(await self._ask("show servers state")), self._entries(), self._host)
        if not told:
            return
        for order in told:
            # Its answers are empty, or a line about the change, or an error that the next round would show again.
            if answer := (await self._ask(order)).strip():
                log.debug("local ports: %s: %s", order, answer)
        self._keep(await self._ask("show servers state"))

    def _keep(self, state: str) -> None:
        fresh = self._state_file.with_suffix(".new")
        fresh.write_text(state)
        fresh.chmod(0o644)  # HAProxy has a user of its own
        fresh.rename(self._state_file)

    async def _ask(self, order: str) -> str:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(self._socket))
            try:
                writer.write(f"{order}\n".encode())
                return (await reader.read()).decode()
            finally:
                writer.close()

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            log.warning("local ports: %s", trouble) if trouble else log.info("local ports: HAProxy answers again")
