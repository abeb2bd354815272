"""Death of a process as an event: a pidfd on the event loop, which no reused pid can deceive."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

from outrider.host.processes import stat_of
from outrider.host.supervisor import Callback, Exit, Process

Ended = Callable[[Process], Exit]


class Watch:
    """One process. `ended` is called once at its death, to reap it and to say how it ended; then the callbacks.

    Raises nothing for a process that is gone: it is `done` from the start.
    """

    def __init__(self, process: Process, ended: Ended) -> None:
        self.process = process
        self.callbacks: list[Callback] = []
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[Exit] = self._loop.create_future()
        self._fd = _open(process)
        if self._fd is not None:
            self._loop.add_reader(self._fd, self._died)

    @property
    def done(self) -> bool:
        """True once its end was seen."""
        return self._fd is None

    def call(self, callback: Callback) -> None:
        """Call back at its death; soon, if it is dead."""
        if self.done:
            ended = self._exit.result() if self._exit.done() else self._ended(self.process)
            self._loop.call_soon(callback, self.process, ended)
        else:
            self.callbacks.append(callback)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; no error if it is gone."""
        if self._fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    async def wait(self, timeout_s: float | None) -> None:
        """Return at its death, or after `timeout_s`."""
        if not self.done:
            await asyncio.wait([self._exit], timeout=timeout_s)

    def _died(self) -> None:
        assert self._fd is not None
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = None
        ended = self._ended(self.process)
        self._exit.set_result(ended)
        for callback in self.callbacks:
            callback(self.process, ended)


class Watches:
    """The watches of one supervisor, one for each process however often it is asked for."""

    def __init__(self, ended: Ended) -> None:
        self._ended = ended
        self._watches: dict[tuple[int, int], Watch] = {}

    def of(self, process: Process) -> Watch:
        """The watch of a process; a new one if it has none."""
        key = (process.pid, process.started)
        if watch := self._watches.get(key):
            return watch
        watch = Watch(process, self._end)
        if not watch.done:
            self._watches[key] = watch
        return watch

    def forget(self, instance: str) -> None:
        """Call nobody back for this instance's processes."""
        for watch in self._watches.values():
            if watch.process.instance == instance:
                watch.callbacks.clear()

    def _end(self, process: Process) -> Exit:
        self._watches.pop((process.pid, process.started), None)
        return self._ended(process)


def _open(process: Process) -> int | None:
    """A pidfd of exactly this process. Opened first and compared after, so that it cannot change in between."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    stat = stat_of(process.pid)
    if stat is not None and stat.started == process.started:  # a zombie is welcome: it says how it ended
        return fd
    os.close(fd)
    return None
