"""A connection to an instance on an event loop: many calls in flight, answered in any order."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast

from outrider.calls import frames
from outrider.calls.connection import LOOK_S, LOST
from outrider.calls.endpoint import local_socket, port_of, short_name
from outrider.calls.frames import FrameReader, Hello, Refusal, Reply, Request, Welcome, from_agent
from outrider.discovery.records import Instance
from outrider.errors import CallTimeout, ConnectionLost, FrameError

log = logging.getLogger("outrider.calls")

T = TypeVar("T")

Answer = tuple[Reply | Refusal, memoryview | None]


async def open_channel(
    instance: Instance,
    caller: str,
    runtime: Path,
    timeout_s: float,
    tls: ssl.SSLContext | None,
    here: str = "",
    lost: Callable[[], bool] | None = None,
) -> Channel:
    """Connect. Raises ConnectionLost and CallTimeout.

    here: this host, where the environment does not say
    lost: whether the instance's host is lost: what is under way when that becomes true is given up
    """
    loop = asyncio.get_running_loop()
    path = local_socket(instance, runtime, here)
    try:
        async with asyncio.timeout(timeout_s):
            if path:
                with short_name(path) as name:
                    _, channel = await loop.create_unix_connection(lambda: Channel(instance.agent, caller), name)
            else:
                at = instance.address, port_of(instance)
                name_there = instance.host if tls else None
                connecting = loop.create_connection(
                    lambda: Channel(instance.agent, caller, lost), *at, ssl=tls, server_hostname=name_there
                )
                _, channel = await (_unless(lost, connecting) if lost else connecting)
    except TimeoutError:
        raise CallTimeout(f"{instance.instance} took no connection before the deadline") from None
    except OSError as error:
        raise ConnectionLost(f"{instance.instance}: {error.strerror or error}", safe=True) from error
    return channel


class Channel(asyncio.Protocol):
    """Use `open_channel`. `welcome` is what the instance said of itself, once it has."""

    def __init__(self, agent: str, caller: str, lost: Callable[[], bool] | None = None) -> None:
        self.welcome: Welcome | None = None
        self.is_open = True
        self._greeting = frames.encode(Hello(frames.VERSION, agent, caller))
        self._ids = itertools.count(1)
        self._reader = FrameReader()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._retired = False
        self._lost = lost
        self._was_lost = False
        self._looks: asyncio.TimerHandle | None = None
        self._why = "the instance closed the connection before it answered"

    async def exchange(self, method: str, body: Any, trace: str, epoch: int, until: float, now: float) -> Answer:
        """Send one request and wait for what answers it, until `until`; the buffers are of its arrays.

        Raises CallTimeout, after which the connection goes on serving others, ConnectionLost, and TypeError for a
        body that cannot be sent.
        """
        number = next(self._ids)
        parts = frames.encode(Request(number, method, int((until - now) * 1e6), trace, epoch, body))
        if not self.is_open:
            raise ConnectionLost("the connection is gone", safe=True)
        loop = asyncio.get_running_loop()
        answer = self._waiting[number] = loop.create_future()
        timer = loop.call_later(until - now, _give_up, answer)
        if self._lost and self._looks is None:
            self._was_lost = self._lost()
            self._looks = loop.call_later(LOOK_S, self._look, self._lost)
        try:
            self._transport.writelines(parts) if len(parts) > 1 else self._transport.write(parts[0])
            received: Answer = await answer
            return received
        finally:
            timer.cancel()
            del self._waiting[number]
            if self._retired and not self._waiting:
                self.close()

    def retire(self) -> None:
        """Close it as soon as nobody waits."""
        self._retired = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Whoever waits gets ConnectionLost."""
        self.is_open = False
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport.writelines(self._greeting)

    def data_received(self, data: bytes) -> None:
        """Of asyncio.Protocol."""
        try:
            for view, buffers in self._reader.feed(data):
                self._take(from_agent(view), buffers)
        except FrameError as error:
            self._why = error.message
            log.warning("%s; the connection is closed", self._why)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio.Protocol."""
        self.is_open = False
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionLost(self._why))

    def _look(self, lost: Callable[[], bool]) -> None:
        """While calls are under way: what was sent before the host was lost will not be answered."""
        self._looks = None
        is_lost, was_lost, self._was_lost = lost(), self._was_lost, False
        if not self._waiting or not self.is_open:
            return
        if is_lost and not was_lost:
            self._why, self.is_open = LOST, False
            self._transport.abort()
            return
        self._was_lost = is_lost
        self._looks = asyncio.get_running_loop().call_later(LOOK_S, self._look, lost)

    def _take(self, message: Welcome | Reply | Refusal, buffers: memoryview | None) -> None:
        if isinstance(message, Welcome):
            self.welcome = message
        elif isinstance(message, Refusal) and message.id == 0:
            self._why = message.message
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionLost(message.message, safe=True))
        elif (waiting := self._waiting.get(message.id)) and not waiting.done():
            waiting.set_result((message, buffers))


async def _unless(lost: Callable[[], bool], connecting: Coroutine[Any, Any, T]) -> T:
    before, task = lost(), asyncio.get_running_loop().create_task(connecting)
    try:
        while not (await asyncio.wait({task}, timeout=LOOK_S))[0]:
            if not before and lost():
                raise ConnectionLost(LOST, safe=True)
        return task.result()
    finally:
        task.cancel()


def _give_up(answer: asyncio.Future[Answer]) -> None:
    if not answer.done():
        answer.set_exception(CallTimeout("no answer before the deadline"))
