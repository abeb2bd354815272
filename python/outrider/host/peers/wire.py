"""One datagram: a version, a msgpack body and a code that only who has the fleet's key can make.

Who sent it, in which of its sessions, and the how manieth it is are part of the body, so that a copy of an earlier one
is known as such. Clocks are not trusted: a sender's start only orders its own sessions.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Literal

import msgspec
from msgspec import Struct

VERSION = b"\x01"
CODE_BYTES = 16
# Passes every link without being split.
MAX_BYTES = 1200

Reason = Literal["size", "version", "key", "garbage", "echo", "replay"]


class Item(Struct, frozen=True, array_like=True):
    """News of an instance of the sender's host. `age_s`: since when; `detail`: why, as its check says it."""

    instance: str
    down: bool
    age_s: float
    detail: str = ""


class Beat(Struct, frozen=True, array_like=True, tag=0):
    """The sender lives. `suspects`: all hosts that it votes down; `news`: some of what happened on its own."""

    suspects: tuple[str, ...] = ()
    news: tuple[Item, ...] = ()


class Question(Struct, frozen=True, array_like=True, tag=1):
    """Something asked. `nonce` comes back with the answer."""

    nonce: int
    kind: str
    payload: bytes


class Answer(Struct, frozen=True, array_like=True, tag=2):
    """What was asked for."""

    nonce: int
    payload: bytes


class Bye(Struct, frozen=True, array_like=True, tag=3):
    """The sender stops on purpose, its instances run on: its silence from here on means nothing."""


Message = Beat | Question | Answer | Bye


class Packet(Struct, frozen=True, array_like=True):
    """A message and who sent it. `started` and `nonce` name the sender's session, `count` the datagram in it."""

    host: str
    started: int
    nonce: int
    count: int
    message: Message


class Refused(Exception):
    """A datagram that is dropped."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class TooLarge(ValueError):
    """A message that does not fit into one datagram."""


class Codec:
    """Makes and checks the datagrams of one session. `started`: Unix nanoseconds, later than the host's last one."""

    def __init__(self, key: bytes, host: str, started: int) -> None:
        self._key, self._host, self._started = key, host, started
        self._nonce = secrets.randbits(63)
        self._count = 0
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Packet)
        self._last: dict[str, tuple[int, int, int]] = {}  # the session of each host, and the last count in it

    def seal(self, message: Message) -> bytes:
        """The datagram of a message, to be sent to any number of peers. Raises TooLarge."""
        self._count += 1
        packet = Packet(self._host, self._started, self._nonce, self._count, message)
        data = VERSION + self._encoder.encode(packet)
        if len(data) + CODE_BYTES > MAX_BYTES:
            raise TooLarge(f"{len(data) + CODE_BYTES} bytes, more than the {MAX_BYTES} of a datagram")
        return data + self._code(data)

    def open(self, data: bytes) -> tuple[Packet, bool]:
        """What a datagram says, and whether its sender started anew. Raises Refused."""
        if not 1 + CODE_BYTES < len(data) <= MAX_BYTES:
            raise Refused("size")
        if data[:1] != VERSION:
            raise Refused("version")
        if not hmac.compare_digest(data[-CODE_BYTES:], self._code(data[:-CODE_BYTES])):
            raise Refused("key")
        try:
            packet = self._decoder.decode(memoryview(data)[1:-CODE_BYTES])
        except msgspec.MsgspecError:
            raise Refused("garbage") from None
        if packet.host == self._host:
            raise Refused("echo")
        return packet, self._is_new_session(packet)

    def _is_new_session(self, packet: Packet) -> bool:
        last = self._last.get(packet.host)
        same = last is not None and last[:2] == (packet.started, packet.nonce)
        if last is not None and (packet.count <= last[2] if same else packet.started <= last[0]):
            raise Refused("replay")
        self._last[packet.host] = (packet.started, packet.nonce, packet.count)
        return last is not None and not same

    def _code(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, "sha256")[:CODE_BYTES]
