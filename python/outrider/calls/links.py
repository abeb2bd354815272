"""The connections to one instance: blocking ones, each lent to one call at a time, and one per event loop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from outrider.calls.channel import Channel
    from outrider.calls.connection import Connection

MOST_IDLE = 64


class Links:
    """Opened when first needed. Once retired, what is idle is closed, and what is in use closes when it comes back."""

    __slots__ = ("_channels", "_idle", "_retired")

    def __init__(self) -> None:
        self._idle: list[Connection] = []
        self._channels: WeakKeyDictionary[asyncio.AbstractEventLoop, Channel] = WeakKeyDictionary()
        self._retired = False

    def borrow(self) -> Connection | None:
        """The connection used last, whose memory is warm; None if all are in use."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def give_back(self, connection: Connection) -> None:
        """After a call that left it in order."""
        if self._retired or len(self._idle) >= MOST_IDLE:
            connection.close()
        else:
            self._idle.append(connection)

    def channel(self, loop: asyncio.AbstractEventLoop) -> Channel | None:
        """The loop's connection, if it has one that is open."""
        channel = self._channels.get(loop)
        return channel if channel is not None and channel.is_open else None

    def add_channel(self, loop: asyncio.AbstractEventLoop, channel: Channel) -> None:
        """The loop's connection from now on."""
        self._channels[loop] = channel

    def close_idle(self) -> None:
        """Close what is not in use."""
        while connection := self.borrow():
            connection.close()

    def retire(self) -> None:
        """The instance is gone, or is another process now."""
        self._retired = True
        self.close_idle()
        for loop, channel in list(self._channels.items()):
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its connections with it
                loop.call_soon_threadsafe(channel.retire)
