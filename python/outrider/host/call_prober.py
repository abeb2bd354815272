"""The probe of an agent that serves calls: its built-in health method, over its Unix socket."""

from __future__ import annotations

from outrider.calls.channel import Channel, open_channel
from outrider.calls.frames import Refusal
from outrider.discovery.records import Instance
from outrider.errors import CallError, CallTimeout, ConnectionLost
from outrider.fleet.spec import Probe
from outrider.host.probers import Target
from outrider.host.task_probers import TaskProber, Unanswered

CALLER = "outriderd"


class CallProber(TaskProber):
    """Well if the agent says that it is ready. One connection is kept open."""

    def __init__(self, probe: Probe, target: Target) -> None:
        super().__init__(probe, target)
        self._channel: Channel | None = None
        self._instance = Instance(target.agent, target.instance, "", target.address, target.port, target.ports)

    def describe(self) -> str:
        """What is asked, for people."""
        return "health call"

    async def _inquire(self) -> str:
        try:
            if self._channel is None or not self._channel.is_open:
                limit_s = self.probe.timeout_s
                self._channel = await open_channel(self._instance, CALLER, self.target.runtime, limit_s, None)
            now = self._loop.time()
            answer, _ = await self._channel.exchange("health", None, "", 0, now + self.probe.timeout_s, now)
        except CallTimeout as error:
            raise Unanswered(error.message, "silence") from error
        except ConnectionLost as error:
            raise Unanswered(error.message, "refusal") from error
        except CallError as error:
            return error.message
        return answer.message if isinstance(answer, Refusal) else ""

    def _drop(self) -> None:
        super()._drop()
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
