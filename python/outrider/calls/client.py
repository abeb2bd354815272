"""What a process keeps to call other agents."""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

from outrider.calls import context, frames
from outrider.calls.background import Background
from outrider.calls.channel import Channel, open_channel
from outrider.calls.connection import Connection
from outrider.calls.endpoint import connect, local_socket
from outrider.calls.plan import Plan
from outrider.calls.settings import Settings
from outrider.calls.target import Peer, Target
from outrider.calls.tls import client_context
from outrider.discovery.api import alookup, lookup, lost_hosts, runtime_dir
from outrider.discovery.records import Instance
from outrider.errors import CallError, CallTimeout, ConnectionLost, FrameError

RAISE: Any = object()
MOST_DECODERS = 1000

Fallback = Callable[[CallError], Any]


class Client:
    """Calls agents by name. One is enough for a process: threads, event loops and children of a fork may share it.

    runtime: the runtime folder; by default $OUTRIDER_RUNTIME or /run/outrider
    caller: who calls, as other agents and metrics know it; by default $OUTRIDER_INSTANCE
    """

    def __init__(
        self,
        *,
        runtime: str | Path | None = None,
        caller: str | None = None,
        settings: Settings | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.runtime = Path(runtime or runtime_dir())
        self.caller = caller if caller is not None else os.environ.get("OUTRIDER_INSTANCE", "")
        self.settings = settings or Settings()
        self.tls: ssl.SSLContext | None = client_context()
        self._folder = str(self.runtime)
        self._host = os.environ.get("OUTRIDER_HOST", "")
        self.rng = rng or random.Random()
        self._lock = threading.Lock()
        self._targets: dict[str, Target] = {}
        self._http_targets: dict[str, Target] = {}
        self._decoders: dict[Any, Any] = {Any: frames.untyped}
        self._background = Background(self)
        _clients.add(self)

    def call(
        self,
        agent: str,
        method: str,
        arguments: Any = None,
        *,
        timeout: float | None = None,
        reply: Any = Any,
        idempotent: bool = False,
        fallback: Any = RAISE,
    ) -> Any:
        """Call `method` of `agent` and return what it returns. Blocks for at most `timeout` seconds.

        arguments: the method's, by name, or one Struct; numbers, text, bytes, lists, mappings, Structs, numpy arrays
        timeout: of everything: waiting, retries and the work; never more than is left to the call being worked on
        reply: the type that is expected; without one it is built from plain types
        idempotent: it may be sent again after a failure that leaves open whether it was worked on; an agent's
            method that says so of itself needs no mark here
        fallback: what to return instead of raising: a value, or a function of the CallError

        Raises UnknownAgent, TypeError for arguments that cannot be sent, and the CallErrors of outrider.errors.
        """
        now = time.monotonic()
        target = self._targets.get(agent) or self._target(agent, now)
        decoder = self._decoders.get(reply) or self._decoder(reply)
        plan = Plan(
            target, method, timeout or self.settings.timeout_s, idempotent or target.may_repeat(method), now, self.rng
        )
        outcome = "abandoned"
        arguments = {} if arguments is None else arguments
        try:
            while True:
                peer = plan.next_peer(lookup(agent, runtime=self._folder), now)
                if not isinstance(peer, Peer):
                    time.sleep(peer)
                    now = time.monotonic()
                    continue
                try:
                    value = self._exchange(peer, plan, arguments, decoder, now)
                except CallError as error:
                    now = time.monotonic()
                    plan.failed(error, now)
                else:
                    outcome = "ok"
                    return value
        except CallError as error:
            outcome = error.kind
            return self._degraded(error, fallback)
        finally:
            self.finish(plan, outcome)

    async def acall(
        self,
        agent: str,
        method: str,
        arguments: Any = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - of the call with its retries, and sent along
        reply: Any = Any,
        idempotent: bool = False,
        fallback: Any = RAISE,
    ) -> Any:
        """`call` for coroutines: many of them share one connection to each instance."""
        now = time.monotonic()
        target = self._targets.get(agent) or self._target(agent, now)
        decoder = self._decoders.get(reply) or self._decoder(reply)
        plan = Plan(
            target, method, timeout or self.settings.timeout_s, idempotent or target.may_repeat(method), now, self.rng
        )
        outcome = "abandoned"
        arguments = {} if arguments is None else arguments
        try:
            while True:
                peer = plan.next_peer(await alookup(agent, runtime=self._folder), now)
                if not isinstance(peer, Peer):
                    await asyncio.sleep(peer)
                    now = time.monotonic()
                    continue
                try:
                    value = await self._aexchange(peer, plan, arguments, decoder, now)
                except CallError as error:
                    now = time.monotonic()
                    plan.failed(error, now)
                else:
                    outcome = "ok"
                    return value
        except CallError as error:
            outcome = error.kind
            return self._degraded(error, fallback)
        finally:
            self.finish(plan, outcome)

    def targets(self) -> list[Target]:
        """Every agent that was called."""
        return [*self._targets.values(), *self._http_targets.values()]

    def http_target(self, agent: str, port: str) -> Target:
        """What is known of an agent's HTTP port: its circuits are not those of its calls, nor of its other ports."""
        key = f"{port}.{agent}"
        return self._http_targets.get(key) or self._http_target(key, agent, port)

    def close(self) -> None:
        """Close every connection; the next call opens them again."""
        self._background.flush()
        self._background.stop()
        for target in self.targets():
            for peer in target.peers:
                peer.relink()

    def _exchange(self, peer: Peer, plan: Plan, arguments: Any, decoder: Any, now: float) -> Any:
        """One attempt on a connection of its own."""
        links = peer.links
        idle = links.borrow()
        connection = idle or self._connect(peer, plan, now)
        try:
            reply, buffers = connection.exchange(
                plan.method, arguments, plan.trace, plan.target.epoch, plan.attempt_until, now, plan.in_need
            )
        except ConnectionLost as error:
            connection.close()
            if idle is None or not error.safe:
                raise
            # It broke while nobody used it, as the others of that time will have: the instance itself may be well.
            links.close_idle()
            return self._exchange(peer, plan, arguments, decoder, time.monotonic())
        except TypeError:
            links.give_back(connection)
            raise
        except FrameError as error:
            connection.close()
            raise ConnectionLost(error.message) from error
        except BaseException:
            connection.close()
            raise
        try:
            return plan.answered(reply, buffers, decoder, time.monotonic())
        finally:
            if connection.welcome is not None:
                plan.target.welcome(connection.welcome)
            links.give_back(connection)

    async def _aexchange(self, peer: Peer, plan: Plan, arguments: Any, decoder: Any, now: float) -> Any:
        """One attempt on the connection that all coroutines of this loop share."""
        channel = peer.links.channel(asyncio.get_running_loop()) or await self.channel(peer, plan.attempt_until - now)
        reply, buffers = await channel.exchange(
            plan.method, arguments, plan.trace, plan.target.epoch, plan.attempt_until, now
        )
        if channel.welcome is not None:
            plan.target.welcome(channel.welcome)
        return plan.answered(reply, buffers, decoder, time.monotonic())

    async def channel(self, peer: Peer, timeout_s: float) -> Channel:
        """The running loop's connection to an instance, opened if need be. Raises ConnectionLost and CallTimeout."""
        loop = asyncio.get_running_loop()
        channel = await open_channel(
            peer.instance, self.caller, self.runtime, timeout_s, self.tls, lost=self._lost(peer)
        )
        if (other := peer.links.channel(loop)) is not None:
            channel.close()  # another coroutine was quicker
            return other
        peer.links.add_channel(loop, channel)
        return channel

    def _connect(self, peer: Peer, plan: Plan, now: float) -> Connection:
        instance, lost = peer.instance, self._lost(peer)
        try:
            sock = connect(instance, self.runtime, max(0.001, plan.attempt_until - now), self.tls, lost)
        except TimeoutError:
            raise CallTimeout(f"{instance.instance} took no connection before the deadline") from None
        except OSError as error:
            raise ConnectionLost(f"cannot be reached: {error.strerror or error}", safe=True) from error
        return Connection(sock, instance.agent, self.caller, lost=lost)

    def _lost(self, peer: Peer) -> Callable[[], bool] | None:
        """Whether its host is lost, to be asked while calls to it are under way; None for one of this host."""
        agent, host = peer.instance.agent, peer.instance.host
        return None if peer.local else lambda: host in lost_hosts(agent, self._folder)

    def finish(self, plan: Plan, outcome: str) -> None:
        """The call is over: `outcome` is ok or the error's kind."""
        now = time.monotonic()
        plan.abandon(now)
        took_s = plan.finish(outcome, now)
        self._background.called(plan, outcome, took_s)

    def _degraded(self, error: CallError, fallback: Any) -> Any:
        if fallback is RAISE:
            raise error
        return fallback(error) if callable(fallback) else fallback

    def _target(self, agent: str, now: float) -> Target:
        with self._lock:
            if agent not in self._targets:
                self._targets[agent] = self._new_target(agent, now, self._background.recover)
            return self._targets[agent]

    def _http_target(self, key: str, agent: str, port: str) -> Target:
        with self._lock:
            if key not in self._http_targets:
                opened = partial(self._background.recover_http, port)
                self._http_targets[key] = self._new_target(agent, time.monotonic(), opened)
            return self._http_targets[key]

    def _new_target(self, agent: str, now: float, opened: Callable[[Peer], None]) -> Target:
        return Target(agent, self.settings, is_local=self._is_local, rng=self.rng, opened=opened, now=now)

    def _is_local(self, instance: Instance) -> bool:
        """Whether it is on this host, also where no shim has told us which that is."""
        return instance.host == self._host or local_socket(instance, self.runtime) is not None

    def _decoder(self, kind: Any) -> Any:
        with self._lock:
            if len(self._decoders) > MOST_DECODERS:
                raise ValueError("too many types of replies: pass the same type object each time")
            return self._decoders.setdefault(kind, frames.decoder_of(kind))

    def _forked(self) -> None:
        """The connections, threads and locks are the parent's."""
        context.reseed()
        self.rng.seed()
        self._lock = threading.Lock()
        self._background = Background(self)
        self._targets, self._http_targets = {}, {}


_clients: WeakSet[Client] = WeakSet()


def _forked() -> None:
    for client in list(_clients):
        client._forked()


def _ends() -> None:
    for client in list(_clients):
        client._background.flush()


os.register_at_fork(after_in_child=_forked)
atexit.register(_ends)

_default: Client | None = None
_default_lock = threading.Lock()


def default() -> Client:
    """The client of this process, which `outrider.call` and `outrider.acall` use."""
    global _default
    if _default is None:
        with _default_lock:
            _default = _default or Client()
    return _default
