"""Which calls are worked on, which wait and which are refused; and how one is worked on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from outrider.calls import context, frames
from outrider.calls.fence import Fence
from outrider.calls.frames import Hello, Refusal, Reply, Request, Welcome
from outrider.calls.internal import PREFIX, Internal
from outrider.calls.methods import Method
from outrider.calls.tally import Tally
from outrider.calls.workers import Workers
from outrider.errors import CallError, CallFailed, CallRefused, CallTimeout, Draining, FrameError, NotHolder, Overloaded

if TYPE_CHECKING:
    from outrider.calls.serving import ServedConnection

log = logging.getLogger("outrider.calls")

HEALTH = "health"
SWEEP_S = 0.02
MOST_S = 3600.0  # that any caller is believed to wait


class Job:
    """One call that was accepted, under `epoch`.

    began, until: monotonic seconds of its coming, and from when on nobody waits for it
    """

    __slots__ = (
        "arguments",
        "began",
        "begun",
        "connection",
        "ended",
        "epoch",
        "method",
        "overdue",
        "request",
        "task",
        "until",
    )

    def __init__(
        self,
        connection: ServedConnection,
        request: Request,
        method: Method,
        arguments: Callable[[], Any],
        began: float,
        until: float,
        epoch: int,
    ) -> None:
        self.connection = connection
        self.request = request
        self.method = method
        self.arguments = arguments
        self.began = began
        self.until = until
        self.epoch = epoch
        self.task: asyncio.Task[Any] | None = None
        self.begun = self.overdue = self.ended = False


_job: ContextVar[Job | None] = ContextVar("outrider_job", default=None)  # that is worked on here


class Dispatcher:
    """Of one agent. Everything but the functions that it serves runs on its event loop."""

    def __init__(self, agent: str, instance: str, concurrency: int, queue: int) -> None:
        self.ready = True
        self.detail = ""
        self.draining = False
        self.fence: Fence | None = None  # of an instance of a singleton
        self.idle = asyncio.Event()  # no call is under way
        self.idle.set()
        self._agent = agent
        self._instance = instance
        self._concurrency = concurrency
        self._most_waiting = queue
        self._methods: dict[str, Method] = {}
        self._internal: dict[str, Internal] = {}
        self._tally = Tally()
        self._running: set[Job] = set()
        self._waiting: deque[Job] = deque()
        self._workers: Workers | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._began = time.monotonic()

    @property
    def epoch(self) -> int:
        """Of the lease that is held now; 0 if none is, or none is needed."""
        return self.fence.epoch if self.fence else 0

    @property
    def epoch_of_work(self) -> int:
        """The epoch that the call worked on here was accepted under, held or not.

        Outside of a call that of the lease that is held now, and 0 while it is about to be given up.

        A call that saw a newer epoch of its own instance might undo with it what another holder did in between.
        """
        job = _job.get()
        if job is None or job.ended:
            return self.fence.open_epoch if self.fence else 0
        return job.epoch

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work on this loop from now on."""
        self._loop = loop
        self.draining = False

    def add(self, method: Method) -> None:
        """Serve it. Raises ValueError for a name that is taken."""
        if method.name in self._methods or method.name == HEALTH or method.name.startswith(PREFIX):
            raise ValueError(f"{self._agent} serves {method.name} already")
        self._methods[method.name] = method

    def add_internal(self, methods: dict[str, Internal]) -> None:
        """What the library serves itself, whether or not the agent holds a lease."""
        self._internal |= methods

    def welcome(self) -> Welcome:
        """What a caller is told first."""
        idempotent = tuple(name for name, method in self._methods.items() if method.idempotent)
        return Welcome(frames.VERSION, self._agent, self._instance, (HEALTH, *idempotent))

    def unwelcome(self, hello: Hello) -> str:
        """Why a caller is turned away; empty if it is not."""
        if hello.version != frames.VERSION:
            return f"it speaks version {hello.version} of the protocol, {self._instance} speaks {frames.VERSION}"
        if hello.agent != self._agent:
            return f"it wants {hello.agent}, this is {self._agent}"
        return ""

    def accept(self, connection: ServedConnection, request: Request, buffers: memoryview | None) -> None:
        """Work on a call now or later, or refuse it at once."""
        try:
            if request.method == HEALTH:
                connection.send(self._health(request))
                return
            if internal := self._internal.get(request.method):
                internal.accept(connection, request)
                return
            job = self._job(connection, request, buffers)
        except CallError as error:
            connection.send(Refusal(request.id, self.epoch, error.kind, error.message))
            return
        if job.method.is_quick:
            self._run_quick(job)
        elif len(self._running) < self._concurrency:
            self._start(job)
        else:
            self._waiting.append(job)

    def gone(self, connection: ServedConnection) -> None:
        """A caller went away: what it asked is not worked on, as far as that can be stopped."""
        if any(job.connection is connection for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if job.connection is not connection)
        for job in list(self._running):
            if job.connection is connection:
                self._cancel(job)

    def awaited_s(self) -> float:
        """Seconds for which some caller still waits."""
        now = time.monotonic()
        return max((job.until - now for job in (*self._running, *self._waiting)), default=0.0)

    def close(self) -> None:
        """After the last call."""
        for job in list(self._running):
            self._cancel(job)
        if self._sweep is not None:
            self._sweep.cancel()
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _cancel(self, job: Job) -> None:
        if job.task is not None:
            job.task.cancel()
            if not job.begun:
                self._done(job)  # it never comes to its own end

    def _job(self, connection: ServedConnection, request: Request, buffers: memoryview | None) -> Job:
        """Raises the CallError that the caller gets."""
        if self.draining:
            raise Draining(f"{self._instance} is stopping")
        epoch = self.fence.admit(request.epoch) if self.fence else 0
        method = self._methods.get(request.method)
        if method is None:
            served = ", ".join(sorted(self._methods)) or "none"
            raise CallRefused(f"{self._agent} has no method {request.method[:80]!r}; it has: {served}")
        if request.timeout_us <= 0:
            raise CallTimeout("the time for it was over when it came")
        if not method.is_quick and len(self._running) >= self._concurrency and len(self._waiting) >= self._most_waiting:
            running, waiting = len(self._running), len(self._waiting)
            raise Overloaded(f"{running} calls are under way and {waiting} wait")
        now = time.monotonic()
        until = now + min(request.timeout_us / 1e6, MOST_S)
        return Job(connection, request, method, method.bind(request.body, buffers), now, until, epoch)

    def _start(self, job: Job) -> None:
        self._running.add(job)
        self.idle.clear()
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_S, self._stop_overdue)
        if job.method.is_coroutine:
            job.task = self._loop.create_task(self._run_coroutine(job))
        else:
            if self._workers is None:
                self._workers = Workers(self._concurrency, self._instance)
            self._workers.submit(lambda: self._run_function(job))

    async def _run_coroutine(self, job: Job) -> None:
        job.begun = True
        _enter(job)
        try:
            value = await job.arguments()
        except asyncio.CancelledError:
            if not job.overdue:
                raise
            self._refuse(
                job, CallTimeout("it was stopped at its deadline") if self._may_answer(job) else _unlicensed(job)
            )
        except Exception as error:
            self._refuse(job, _failure(job, error))
        else:
            self._answer(job, value)
        finally:
            self._done(job)

    def _stop_overdue(self) -> None:
        """One timer for all calls: one for each would cost more than most calls do."""
        now = time.monotonic()
        if self.fence:
            self._stop_fenced(self.fence)
        for job in list(self._running):
            if job.until <= now and not job.overdue and job.task is not None:
                job.overdue = True
                job.task.cancel()
        self._sweep = self._loop.call_later(SWEEP_S, self._stop_overdue) if self._running else None

    def _stop_fenced(self, fence: Fence) -> None:
        """What was begun under a lease that is over must not go on."""
        for job in [job for job in self._running if not fence.still(job.epoch)]:
            if job.task is None:
                fence.overrun(job.method.name)
            elif not job.overdue:
                job.overdue = True
                job.task.cancel()

    def _run_function(self, job: Job) -> None:
        """On a thread. A function that has begun cannot be stopped."""
        _enter(job)
        try:
            value, error = job.arguments(), None
        except Exception as raised:
            value, error = None, _failure(job, raised)
        with contextlib.suppress(RuntimeError):  # the agent has ended, and nobody waits any more
            self._loop.call_soon_threadsafe(self._end_function, job, value, error)

    def _end_function(self, job: Job, value: Any, error: CallError | None) -> None:
        if error is None:
            self._answer(job, value)
        else:
            self._refuse(job, error)
        self._done(job)

    def _run_quick(self, job: Job) -> None:
        before = _job.set(job)
        try:
            value = job.arguments()
        except Exception as error:
            self._refuse(job, _failure(job, error))
        else:
            self._answer(job, value)
        finally:
            _job.reset(before)

    def _may_answer(self, job: Job) -> bool:
        """Whether it is, or would be, worked on under the lease that it was accepted under."""
        return self.fence is None or self.fence.still(job.epoch)

    def _answer(self, job: Job, value: Any) -> None:
        if not self._may_answer(job):
            self._refuse(job, _unlicensed(job))
            return
        try:
            job.connection.send(Reply(job.request.id, job.epoch, value))
            now = time.monotonic()
            self._tally.add("ok" if now <= job.until else CallTimeout.kind, now - job.began)
        except FrameError as error:
            self._refuse(job, CallRefused(error.message))
        except Exception as error:
            self._refuse(job, _failure(job, error))

    def _refuse(self, job: Job, error: CallError) -> None:
        self._tally.add(error.kind, time.monotonic() - job.began)
        job.connection.send(Refusal(job.request.id, self.epoch, error.kind, error.message))

    def _done(self, job: Job) -> None:
        """Its place is free: the one that waited longest gets it, unless its caller has given up."""
        self._running.discard(job)
        job.ended = True  # what it left running is not its work any more
        while self._waiting and len(self._running) < self._concurrency:
            following = self._waiting.popleft()
            if time.monotonic() >= following.until:
                self._refuse(following, CallTimeout("its time was over before its turn came"))
            elif not self._may_answer(following):
                self._refuse(following, NotHolder(f"{self._instance} lost its lease before the call's turn came"))
            else:
                self._start(following)
        if not self._running:
            self.idle.set()

    def _health(self, request: Request) -> Reply:
        """Raises CallRefused if it is not well: not ready, stopping, or every place is taken by a call without end."""
        if self.draining:
            raise Draining(f"{self._instance} is stopping")
        if not self.ready:
            raise CallRefused(self.detail or "it is not ready")
        now = time.monotonic()
        if len(self._running) >= self._concurrency and all(job.until < now for job in self._running):
            raise CallRefused(f"all {self._concurrency} calls under way are past their deadlines")
        outcomes = self._tally.outcomes
        document = {
            "status": "ready",
            "agent": self._agent,
            "instance": self._instance,
            "uptime_s": round(now - self._began, 3),
            "running": len(self._running),
            "waiting": len(self._waiting),
            "calls": sum(outcomes.values()),
            "failed": outcomes.get(CallFailed.kind, 0) + outcomes.get(CallTimeout.kind, 0),
            "buckets": self._tally.buckets,
        }
        if self.fence:
            document |= {"role": "holder" if self.epoch else "standby", "epoch": self.epoch}
        return Reply(request.id, self.epoch, document)  # type: ignore[arg-type]


def _enter(job: Job) -> None:
    """Calls that it makes share its deadline and its trace."""
    _job.set(job)
    context.deadline.set(job.until)
    context.traceparent.set(job.request.trace)


def _unlicensed(job: Job) -> CallFailed:
    """Not NotHolder, which says that nothing was begun."""
    return CallFailed(f"its lease (epoch {job.epoch}) ended while {job.method.name} was worked on")


def _failure(job: Job, error: Exception) -> CallError:
    """What the caller is told. An error of a call that it made in turn keeps its words, but is its own failure."""
    if isinstance(error, CallRefused) and not error.agent:
        return error  # raised by the method itself
    log.warning("%s failed: %s: %s (trace %s)", job.method.name, type(error).__name__, error, job.request.trace)
    return CallFailed(f"{type(error).__name__}: {error}")
