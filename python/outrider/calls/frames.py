"""The wire: length-prefixed msgpack messages, each with the arrays that belong to it. Pure.

A frame is two little-endian 32-bit lengths, a message, and the buffers of its arrays. Whoever connects says hello
first, for which agent it has come; the other side says who it is. Then requests one way and replies the other, in any
order, told apart by their id.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec
from msgspec import Raw, Struct

from outrider.calls import arrays
from outrider.calls.arrays import ALIGN
from outrider.errors import FrameError

VERSION = 1
TOGETHER = 64 * 1024  # up to here a copy costs less than sending in parts
MAX_FRAME = 64 * 1024 * 1024
PREFIX = struct.Struct("<II")


class Hello(Struct, array_like=True, frozen=True, tag=0):
    """What a caller says first. `agent`: whom it wants, so that nobody else answers on a port that changed hands."""

    version: int
    agent: str
    caller: str


class Request(Struct, array_like=True, frozen=True, tag=1):
    """One call. `timeout_us`: how long an answer is of use, from now; `trace`: W3C traceparent.

    `epoch`: the highest that the caller knows of this agent's holders.
    """

    id: int
    method: str
    timeout_us: int
    trace: str
    epoch: int
    body: Raw


class Welcome(Struct, array_like=True, frozen=True, tag=2):
    """Who answers, and which of its methods may be repeated."""

    version: int
    agent: str
    instance: str
    idempotent: tuple[str, ...]


class Reply(Struct, array_like=True, frozen=True, tag=3):
    """What a method returned."""

    id: int
    epoch: int
    body: Raw


class Refusal(Struct, array_like=True, frozen=True, tag=4):
    """Why there is no such reply: `kind` is one of errors.REFUSALS."""

    id: int
    epoch: int
    kind: str
    message: str


Message = Hello | Request | Welcome | Reply | Refusal
Frame = tuple[bytes | memoryview, memoryview | None]

_encoder = msgspec.msgpack.Encoder(enc_hook=arrays.encode_hook)
_from_caller: msgspec.msgpack.Decoder[Hello | Request] = msgspec.msgpack.Decoder(Hello | Request)
_from_agent: msgspec.msgpack.Decoder[Welcome | Reply | Refusal] = msgspec.msgpack.Decoder(Welcome | Reply | Refusal)
untyped = msgspec.msgpack.Decoder(ext_hook=arrays.decode_hook)


def from_caller(view: bytes | memoryview) -> Hello | Request:
    """A message to an agent. Raises FrameError."""
    try:
        return _from_caller.decode(view)
    except (msgspec.MsgspecError, ValueError) as error:
        raise FrameError(f"no message of ours: {error}") from error


def from_agent(view: bytes | memoryview) -> Welcome | Reply | Refusal:
    """A message of an agent. Raises FrameError."""
    try:
        return _from_agent.decode(view)
    except (msgspec.MsgspecError, ValueError) as error:  # text that is no text is a ValueError
        raise FrameError(f"no message of ours: {error}") from error


def decoder_of(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """For a body of this type."""
    if kind is Any:
        return untyped
    return msgspec.msgpack.Decoder(kind, ext_hook=arrays.decode_hook, dec_hook=arrays.typed_hook)


def encode(message: Message | Any) -> list[bytes | bytearray | memoryview]:
    """The frame's parts, to be sent one after the other. Raises TypeError for a value that cannot be sent."""
    frame = bytearray(PREFIX.size)
    try:
        _encoder.encode_into(message, frame, PREFIX.size)
    finally:
        buffers = arrays.taken()
    size = 0
    for buffer in buffers:
        size += len(buffer)
    PREFIX.pack_into(frame, 0, len(frame) - PREFIX.size, size)
    if size > TOGETHER:
        return [frame, *buffers]
    for buffer in buffers:
        frame += buffer
    return [frame]


def lengths(data: Any, at: int, limit: int) -> tuple[int, int]:
    """Length of the message and of its buffers. Raises FrameError for what is no frame, or too large a one."""
    message, buffers = PREFIX.unpack_from(data, at)
    if message + buffers > limit or message == 0:
        start = bytes(data[at : at + PREFIX.size])
        raise FrameError(
            f"a frame of {message + buffers} bytes is not taken, the limit is {limit} (it begins {start!r})"
        )
    return message, buffers


class FrameReader:
    """Bytes as they come to whole frames. What it returns lives on; nothing is copied twice."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._head = b""  # of a prefix that is not whole yet
        self._body: bytearray | None = None  # of a frame that is not whole yet
        self._filled = self._begin = self._message = 0

    @property
    def inside(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._head) or self._body is not None

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now. Raises FrameError; nothing can be read after that."""
        frames: list[Frame] = []
        if self._body is not None:
            if len(data) <= len(self._body) - self._filled:
                self._fill(self._body, data, frames)
                return frames
            data = bytes(self._fill(self._body, memoryview(data), frames))
        if self._head:
            data, self._head = self._head + data, b""
        at, end = 0, len(data)
        view = memoryview(data)
        while end - at >= PREFIX.size:
            message, buffers = lengths(data, at, self._limit)
            at += PREFIX.size
            if end - at < message + buffers:
                # With a lead, so that the buffers begin where memory is aligned.
                self._begin = self._filled = -message % ALIGN
                self._message = self._begin + message
                self._body = bytearray(self._message + buffers)
                self._fill(self._body, view[at:], frames)
                return frames
            held = memoryview(bytearray(view[at + message : at + message + buffers])) if buffers else None
            frames.append((view[at : at + message], held))
            at += message + buffers
        self._head = data[at:]
        return frames

    def _fill(self, body: bytearray, data: bytes | memoryview, frames: list[Frame]) -> bytes | memoryview:
        """Put `data` where it belongs; what is left of it."""
        part = data[: len(body) - self._filled]
        body[self._filled : self._filled + len(part)] = part
        self._filled += len(part)
        if self._filled == len(body):
            self._body = None
            whole = memoryview(body)
            buffers = whole[self._message :] if len(body) > self._message else None
            frames.append((whole[self._begin : self._message], buffers))
        return data[len(part) :]
