"""What the driver of a migration sees: the fleet as this shim knows it, and what the two instances say themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct

from outrider.calls.channel import Channel, open_channel
from outrider.calls.frames import Reply
from outrider.calls.tls import client_context
from outrider.discovery.feed import View
from outrider.discovery.records import Instance
from outrider.errors import OutriderError
from outrider.fleet.ports import CALL
from outrider.host.config import Config
from outrider.host.publisher import instance_of_service
from outrider.migration.staged.sight import Counts
from outrider.registry.layout import TAG, VRAM
from outrider.registry.services import Service

ASK_S = 0.25
Spot = tuple[str, str]


class _Health(Struct):
    """What an agent's health method says of its calls."""

    calls: int = 0
    failed: int = 0
    buckets: tuple[int, ...] = ()


class Eyes:
    """Of one migration: of its instances since when each passes, and what each counted."""

    def __init__(
        self,
        view: Callable[[], View],
        config: Config,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view = view
        self._config = config
        self._clock = clock
        self._since: dict[str, float] = {}
        self._unwell_since: dict[str, float] = {}
        self._channels: dict[str, Channel] = {}
        self.counts: dict[str, Counts] = {}
        self.took: dict[str, float] = {}  # seconds that each needed to answer last, or until it was given up

    def close(self) -> None:
        """Let go of the connections."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    @property
    def unwell(self) -> dict[str, float]:
        """For how long each has not passed."""
        now = self._clock()
        return {instance: now - since for instance, since in self._unwell_since.items()}

    def look(self, spots: Mapping[str, str]) -> tuple[dict[str, float], dict[str, str]]:
        """Of each instance on its host: for how long it has passed, or why it does not."""
        view, now = self._view(), self._clock()
        passing: dict[str, float] = {}
        trouble: dict[str, str] = {}
        for instance, host in spots.items():
            if why := _trouble(view, instance, host):
                self._since.pop(instance, None)
                self._unwell_since.setdefault(instance, now)
                trouble[instance] = why
            else:
                self._unwell_since.pop(instance, None)
                passing[instance] = now - self._since.setdefault(instance, now)
        return passing, trouble

    def holders(self, spots: Mapping[str, str]) -> frozenset[str]:
        """Those that their hosts have registered as holders of a lease."""
        records = (self.record(instance, host) for instance, host in spots.items())
        return frozenset(record.instance for record in records if record and record.role == "holder")

    async def ask(self, spots: Mapping[str, str]) -> None:
        """Ask each that serves calls for its counts. Who does not answer keeps what it said last."""
        for instance, host in spots.items():
            record = self.record(instance, host)
            if record is None or CALL not in record.ports:
                self.took.pop(instance, None)
                continue
            began = self._clock()
            try:
                self.counts[instance] = await self._count(record)
            except (OutriderError, msgspec.MsgspecError, OSError):
                self._drop(instance)
            self.took[instance] = self._clock() - began

    def record(self, instance: str, host: str) -> Instance | None:
        """Where an instance is reached, once its host has registered it."""
        service = _service(self._view(), instance, host)
        return instance_of_service(service, host) if service else None

    def vram_mib(self, instance: str, host: str) -> int | None:
        """GPU memory that it uses, as its host's shim measured it last; None where that is not measured."""
        service = _service(self._view(), instance, host)
        told = service.meta.get(VRAM, "") if service else ""
        return int(told) if told.isdecimal() else None

    async def _count(self, record: Instance) -> Counts:
        channel = self._channels.get(record.instance)
        if channel is None or not channel.is_open:
            config = self._config
            tls = client_context(config.calls_tls) if config.calls_tls else None
            channel = await open_channel(record, "outriderd", config.runtime_dir, ASK_S, tls, config.host)
            self._channels[record.instance] = channel
        now = self._clock()
        answer, _ = await channel.exchange("health", None, "", 0, now + ASK_S, now)
        if not isinstance(answer, Reply):
            return self.counts.get(record.instance, Counts())
        said = msgspec.msgpack.decode(answer.body, type=_Health)
        return Counts(said.calls, said.failed, said.buckets)

    def _drop(self, instance: str) -> None:
        if channel := self._channels.pop(instance, None):
            channel.close()


def _service(view: View, instance: str, host: str) -> Service | None:
    there = view.members.get(host, ())
    return next((service for service in there if service.id == instance and TAG in service.tags), None)


def _trouble(view: View, instance: str, host: str) -> str:
    """Why an instance does not pass; empty if it does."""
    if _service(view, instance, host) is None:
        return "is not registered yet"
    for check in view.critical:
        if check.node == host and check.service_id in ("", instance):
            return check.output.strip() or f"{check.check_id} is critical"
    return ""
