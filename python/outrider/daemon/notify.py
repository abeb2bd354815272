"""What the shim tells systemd (sd_notify): that it is ready, that it stops, and, from its event loop, that it lives.

Without $NOTIFY_SOCKET, as in the embedded mode, nothing is sent. The variables are taken out of the environment: a
systemctl of ours would speak to the socket too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import MutableMapping

BEATS = 5  # in the time after which systemd ends us, so that no shorter silence than four fifths of it does


class Notifier:
    """One socket to systemd, and the watchdog's beat on the running event loop."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        # The pid tells our own from one that a parent handed down.
        ours = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environ.pop("WATCHDOG_USEC", "")
        self.interval_s = int(microseconds) / (BEATS * 1e6) if ours and microseconds.isdigit() else 0.0
        self._timer: asyncio.TimerHandle | None = None

    def ready(self) -> None:
        """The API answers. From here on a hung event loop is noticed."""
        self.tell("READY=1")
        if self._address and self.interval_s:
            self._beat()

    def stopping(self) -> None:
        """We stop by ourselves; the watchdog still looks whether that hangs."""
        self.tell("STOPPING=1")

    def close(self) -> None:
        """No more beats."""
        if self._timer:
            self._timer.cancel()

    def tell(self, message: str) -> None:
        """Send one message. Never waits and never fails: systemd that does not listen is not our trouble."""
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode(), self._address)

    def _beat(self) -> None:
        self.tell("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self.interval_s, self._beat)
