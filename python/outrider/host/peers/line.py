"""The socket: seals what goes out, opens what comes in, and drops what is not ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from outrider.errors import HostError
from outrider.host.peers.addresses import Addresses
from outrider.host.peers.drops import Drops
from outrider.host.peers.wire import Codec, Message, Packet, Refused, TooLarge

# A packet, the address that it came from, and whether its sender started anew.
Take = Callable[[Packet, str, bool], None]


class Line(asyncio.DatagramProtocol):
    """One UDP socket of the fleet. All hosts use the same port."""

    def __init__(self, codec: Codec, take: Take, clock: Callable[[], float]) -> None:
        self._codec, self._take, self._clock = codec, take, clock
        self._transport: asyncio.DatagramTransport | None = None
        self._closed = asyncio.Event()
        self.drops = Drops()
        self.sent = self.received = 0

    async def start(self, address: str, port: int) -> None:
        """Listen. Raises HostError if the address cannot be had."""
        self._addresses = Addresses(port)
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(address, port))
        except OSError as error:
            raise HostError(
                f"cannot listen on UDP {address}:{port}: {error.strerror or error}",
                hint="set another peers_port, the same on all hosts",
            ) from error

    async def close(self) -> None:
        """Listen and send no more. The address is free when this returns."""
        if self._transport:
            self._transport.close()
            self._transport = None
            await self._closed.wait()

    def send(self, message: Message, addresses: Iterable[str]) -> None:
        """Send it to each address. What cannot be sent is dropped and counted."""
        if self._transport is None:
            return
        try:
            data = self._codec.seal(message)
        except TooLarge as error:
            self.drops.add("send", f"to all ({error})", self._clock())
            return
        for address in addresses:
            if where := self._addresses.of(address):
                try:
                    self._transport.sendto(data, where)
                    self.sent += 1
                except OSError as error:
                    self.drops.add("send", f"to {address} ({error.strerror})", self._clock())

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Called by the loop."""
        self.received += 1
        try:
            packet, anew = self._codec.open(data)
        except Refused as refused:
            self.drops.add(refused.reason, f"from {addr[0]}", self._clock())
            return
        self._take(packet, addr[0], anew)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop when the socket is closed."""
        self._closed.set()

    def error_received(self, exc: Exception) -> None:
        """Called by the loop, for an address that cannot be reached: the host's silence tells it as well."""
        self.drops.add("send", f"to a peer ({exc})", self._clock())
