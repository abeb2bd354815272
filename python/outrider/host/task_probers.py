"""Probes that need a task each time they ask: a ZeroMQ request, and a command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from abc import abstractmethod
from typing import Any

from outrider.fleet.spec import Probe
from outrider.host.placeholders import fill
from outrider.host.probers import Kind, Prober, Target
from outrider.host.socket_probers import kind_of

LONGEST_OUTPUT = 200


class Unanswered(Exception):
    """Nobody answered: why, and whether that was a refusal or silence."""

    def __init__(self, why: str, kind: Kind) -> None:
        super().__init__(why)
        self.why, self.kind = why, kind


class TaskProber(Prober):
    """What both share: a coroutine that is cancelled when the time is over."""

    def __init__(self, probe: Probe, target: Target) -> None:
        super().__init__(probe, target)
        self._task: asyncio.Task[None] | None = None

    def _ask(self) -> None:
        self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        kind: Kind = "answer"
        try:
            problem = await self._inquire()
        except Unanswered as error:
            problem, kind = error.why, error.kind
        except OSError as error:
            problem, kind = error.strerror or str(error), kind_of(error.errno or 0)
        if self._task is asyncio.current_task():
            self._finish(not problem, f"{self.describe()}: {problem}" if problem else "", kind)

    def _drop(self) -> None:
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    @abstractmethod
    async def _inquire(self) -> str:
        """What is wrong; nothing if all is well. Raises Unanswered, and OSError for what could not be asked."""


class ZmqProber(TaskProber):
    """Well if a REQ is answered, whatever the answer is. Needs pyzmq."""

    def __init__(self, probe: Probe, target: Target) -> None:
        super().__init__(probe, target)
        self._socket: Any = None

    def describe(self) -> str:
        """What is asked, for people."""
        return f"request to tcp://{self.target.address}:{self.target.port}"

    async def _inquire(self) -> str:
        try:
            import zmq
            import zmq.asyncio
        except ImportError:
            return "zmq probes need pyzmq on this host: pip install 'outrider[zmq]'"
        if self._socket is None:
            self._socket = zmq.asyncio.Context.instance().socket(zmq.REQ)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.IPV6, int(":" in self.target.address))
            host = f"[{self.target.address}]" if ":" in self.target.address else self.target.address
            self._socket.connect(f"tcp://{host}:{self.target.port}")
        try:
            await self._socket.send_string(self.probe.request)
            await self._socket.recv()
        except zmq.ZMQError as error:
            self._close_socket()
            return str(error)
        return ""

    def _drop(self) -> None:
        super()._drop()
        self._close_socket()  # a REQ without its answer can send nothing more

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None


class CommandProber(TaskProber):
    """Well if the command exits 0. It runs in a session of its own and leaves nothing behind."""

    def describe(self) -> str:
        """What is asked, for people."""
        return " ".join(self.probe.command) or "command"

    async def _inquire(self) -> str:
        if not self.probe.command:
            return "a command probe without a command"
        argv = fill(self.probe.command, self.target.ports, {"address": self.target.address})
        output = os.memfd_create("probe")  # what it prints may be long, and nobody may be left to read a pipe
        try:
            child = await asyncio.create_subprocess_exec(
                *argv,
                cwd="/",
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                status = await child.wait()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            return "" if status == 0 else f"exit status {status}{_last_words(output)}"
        finally:
            os.close(output)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "OUTRIDER_INSTANCE": self.target.instance,
            "OUTRIDER_ADDRESS": self.target.address,
            "OUTRIDER_PORT": str(self.target.port),
        }


def _last_words(output: int) -> str:
    """The last line that the command printed, cut to a length that fits a check in Consul."""
    size = os.fstat(output).st_size
    lines = os.pread(output, 4096, max(0, size - 4096)).decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f" ({last[:LONGEST_OUTPUT]})" if last else ""
