"""What a client does beside its calls, on one thread with an event loop: probe what is ill, tell the shim.

The thread starts with the first call that there is something to tell of, and sleeps while nobody calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pybreaker

from outrider.calls.channel import open_channel
from outrider.calls.endpoint import named_port, short_name
from outrider.calls.frames import Reply
from outrider.calls.reports import CircuitReport, ProcessReport, Sample, TallyReport, reports_socket
from outrider.errors import CallError

if TYPE_CHECKING:
    from outrider.calls.client import Client
    from outrider.calls.plan import Plan
    from outrider.calls.target import Peer

log = logging.getLogger("outrider.calls")

REPORT_S = 1.0
PROBE_S = 0.25
SLOW_S = 1.0  # what is slower is worth a sample
MOST_SAMPLES = 20  # of one report
MOST_BYTES = 60_000  # of one datagram


Probe = Callable[["Peer"], Awaitable[bool]]


class Background:
    """Started by itself; `stop` ends it, and the next call starts it again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dirty = False
        self._wake: asyncio.Event | None = None
        self._samples: deque[Sample] = deque(maxlen=MOST_SAMPLES)
        self._recovering: set[Peer] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def called(self, plan: Plan, outcome: str, took_s: float) -> None:
        """A call ended."""
        if outcome != "ok" or took_s > SLOW_S:
            self._samples.append(Sample(time.time(), plan.target.agent, plan.method, outcome, took_s, plan.trace))
        if not self._dirty:
            self._dirty = True
            self._run(self._set_awake)

    def recover(self, peer: Peer) -> None:
        """A circuit opened: probe its instance until it answers. Called under the target's lock."""
        self._run(self._start_recovery, peer, self._answers_calls)

    def recover_http(self, port: str, peer: Peer) -> None:
        """As `recover`, for the port of that name of an agent that is an HTTP server."""
        self._run(self._start_recovery, peer, partial(_takes_connections, port))

    def stop(self) -> None:
        """End the thread."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def flush(self) -> None:
        """Report now, from this thread: the process ends, or closes its client."""
        if self._dirty:
            self._dirty = False
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                self._send(sock)

    def _send(self, sock: socket.socket) -> None:
        for datagram in self._datagrams():
            # Advice, and it grows by itself: what is lost now is in the next one.
            with contextlib.suppress(OSError), short_name(reports_socket(self._client.runtime)) as name:
                sock.sendto(datagram, name)

    def _run(self, what: Callable[..., None], *arguments: Any) -> None:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._serve, args=(self._loop,), name="outrider-calls", daemon=True).start()
            self._loop.call_soon_threadsafe(what, *arguments)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        self._wake = asyncio.Event()
        reporter = loop.create_task(self._report())
        loop.run_forever()
        for task in (reporter, *self._tasks):
            task.cancel()
        loop.run_until_complete(asyncio.gather(reporter, *self._tasks, return_exceptions=True))
        loop.close()

    def _set_awake(self) -> None:
        assert self._wake is not None
        self._wake.set()

    def _start_recovery(self, peer: Peer, answers: Probe) -> None:
        if peer not in self._recovering:
            self._recovering.add(peer)
            task = asyncio.get_running_loop().create_task(self._recover(peer, answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _recover(self, peer: Peer, answers: Probe) -> None:
        """Wait as long as the circuit says, probe, and let trials through once a probe is answered."""
        try:
            while peer in peer.target.peers and not peer.breaker.is_closed:
                left_s = peer.breaker.opened + peer.breaker.open_for_s - time.monotonic()
                if peer.breaker.current_state != pybreaker.STATE_OPEN:
                    await asyncio.sleep(0.05)
                elif left_s > 0:
                    await asyncio.sleep(left_s)
                elif await answers(peer):
                    with peer.target.lock:
                        if peer.breaker.current_state == pybreaker.STATE_OPEN:
                            peer.breaker.half_open()
                else:
                    with peer.target.lock:
                        peer.breaker.put_off(time.monotonic())
        except Exception:
            log.exception("a defect while %s is probed", peer.instance.instance)
        finally:
            self._recovering.discard(peer)

    async def _answers_calls(self, peer: Peer) -> bool:
        """Whether its built-in health method answers quickly. On a connection that is closed after."""
        client = self._client
        try:
            channel = await open_channel(peer.instance, client.caller, client.runtime, PROBE_S, client.tls)
            try:
                now = time.monotonic()
                answer, _ = await channel.exchange("health", None, "", 0, now + PROBE_S, now)
            finally:
                channel.close()
        except CallError:
            return False
        return isinstance(answer, Reply)

    async def _report(self) -> None:
        """Once a second, if there were calls, and while a circuit is open."""
        assert self._wake is not None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setblocking(False)
        with sock:
            while True:
                if not self._recovering:
                    await self._wake.wait()
                await asyncio.sleep(REPORT_S)
                self._wake.clear()
                self._dirty = False
                self._send(sock)

    def _datagrams(self) -> list[bytes]:
        """One report, in parts that a datagram takes."""
        client = self._client
        tallies: list[TallyReport] = []
        circuits: list[CircuitReport] = []
        for target in client.targets():
            with target.lock:
                tallies += [TallyReport.of(target.agent, method, tally) for method, tally in target.tallies.items()]
                circuits += [
                    CircuitReport.of(peer) for peer in target.peers if peer.latency_at or not peer.breaker.is_closed
                ]
        samples = [self._samples.popleft() for _ in range(len(self._samples))]
        return _packed(ProcessReport(client.caller, os.getpid(), tuple(tallies), tuple(circuits), tuple(samples)))


async def _takes_connections(port: str, peer: Peer) -> bool:
    """Whether an HTTP server's port of that name accepts."""
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(peer.instance.address, named_port(peer.instance, port))
    except OSError:
        return False
    writer.close()
    return True


def _packed(report: ProcessReport) -> list[bytes]:
    """In datagrams that are taken. What is told of one agent stays together: the shim replaces it whole."""
    data = msgspec.msgpack.encode(report)
    agents = sorted({tally.agent for tally in report.tallies} | {circuit.agent for circuit in report.circuits})
    if len(data) <= MOST_BYTES or len(agents) < 2:
        return [data]
    datagrams: list[bytes] = []
    for half, samples in ((set(agents[::2]), report.samples), (set(agents[1::2]), ())):
        tallies = tuple(tally for tally in report.tallies if tally.agent in half)
        circuits = tuple(circuit for circuit in report.circuits if circuit.agent in half)
        datagrams += _packed(ProcessReport(report.caller, report.pid, tallies, circuits, samples))
    return datagrams
