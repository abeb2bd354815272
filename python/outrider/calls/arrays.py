"""numpy arrays beside a message instead of inside it: sent from their own memory, received as views, no lists.

A msgpack message holds an extension in each array's place: dtype and shape, in the order of the buffers that follow.
"""

from __future__ import annotations

import math
import re
import sys
import threading
import typing
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import numpy as np

ARRAY = 1
ALIGN = 16  # what any dtype wants, so that a view can be computed with as it is


class _Buffers(threading.local):
    """Of the message that this thread is encoding or decoding: the hooks have no other way to reach them."""

    def __init__(self) -> None:
        self.out: list[memoryview] = []
        self.incoming: memoryview | None = None
        self.at = 0


_buffers = _Buffers()


def encode_hook(value: Any) -> Any:
    """What msgspec does not know: numpy arrays and scalars. Raises TypeError."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return _put(value)
        if isinstance(value, numpy.generic):
            return value.item()
    raise TypeError(
        f"a {type(value).__name__} cannot be sent; numbers, text, bytes, lists, mappings, Structs, arrays can"
    )


def decode_hook(code: int, data: memoryview) -> Any:
    """An array as a read-only view of what was received. Raises ValueError."""
    if code != ARRAY:
        raise ValueError(f"extension {code} is not known")
    import numpy

    dtype, shape, size = _described(bytes(data))
    begin, end = _buffers.at, _buffers.at + size
    if _buffers.incoming is None or end > len(_buffers.incoming):
        raise ValueError(f"an array of {size} bytes has no buffer")
    _buffers.at = end + -end % ALIGN
    array = numpy.frombuffer(_buffers.incoming[begin:end], dtype=dtype).reshape(shape)
    array.flags.writeable = False
    return array


def typed_hook(kind: Any, value: Any) -> Any:
    """An array where an annotation asks for one, whatever it says of the type of its numbers. Raises TypeError."""
    plain = typing.get_origin(kind) or kind
    if isinstance(value, plain):
        return value
    raise TypeError(f"expected {plain.__name__}, found {type(value).__name__}")


def taken() -> list[memoryview]:
    """The buffers of the message just encoded, with what aligns them between."""
    out, _buffers.out = _buffers.out, []
    return out


def decode(decoder: msgspec.msgpack.Decoder[Any], message: bytes | memoryview, buffers: memoryview | None) -> Any:
    """Decode a message whose arrays lie in `buffers`. Raises msgspec.MsgspecError."""
    if buffers is None:
        return decoder.decode(message)
    _buffers.incoming, _buffers.at = buffers, 0
    try:
        return decoder.decode(message)
    finally:
        _buffers.incoming = None


def _put(array: np.ndarray[Any, Any]) -> msgspec.msgpack.Ext:
    dtype = array.dtype
    if dtype.hasobject or dtype.names:
        raise TypeError(f"an array of {dtype} cannot be sent; arrays of numbers can")
    if array.size and dtype.kind in "biufc" and array.flags.c_contiguous:
        flat = array.data.cast("B")
    else:
        import numpy

        flat = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8).data
    _buffers.out.append(flat)
    if rest := -len(flat) % ALIGN:
        _buffers.out.append(_PADDING[:rest])
    return msgspec.msgpack.Ext(ARRAY, _description(dtype.str, array.shape))


@lru_cache(1024)  # most agents send arrays of few kinds
def _description(dtype_name: str, shape: tuple[int, ...]) -> bytes:
    return msgspec.msgpack.encode((dtype_name, shape))


@lru_cache(1024)
def _described(data: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Type, shape and size in bytes of an array. Raises ValueError and what msgspec raises."""
    import numpy

    dtype_name, shape = _describe.decode(data)
    if not _DTYPE.fullmatch(dtype_name) or any(size < 0 for size in shape):
        raise ValueError(f"an array of {dtype_name} {shape} is not taken")
    dtype = numpy.dtype(dtype_name)
    return dtype, shape, math.prod(shape) * dtype.itemsize


# numpy would read more than this from a name, even Python.
_DTYPE = re.compile(r"[<>|=]([biufcSU]\d{1,9}|[mM]8(\[\d{0,9}[A-Za-z]{1,2}\])?)")
_PADDING = memoryview(bytes(ALIGN))
_describe = msgspec.msgpack.Decoder(tuple[str, tuple[int, ...]])
