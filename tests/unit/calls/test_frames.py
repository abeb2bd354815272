"""Frames come out as they went in, however they are cut; what is no frame is refused and nothing more."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.calls import arrays, frames
from outrider.calls.frames import FrameReader, Refusal, Request, Welcome, from_agent, from_caller
from outrider.errors import FrameError

FUZZ = Path(__file__).parents[2] / "bench" / "frames_fuzz.py"


def whole(message: Any) -> bytes:
    return b"".join(frames.encode(message))


def request(body: Any) -> Request:
    return Request(1, "say", 500_000, "", 0, body)


def body_of(frame: frames.Frame) -> Any:
    message, buffers = frame
    return arrays.decode(frames.untyped, from_caller(message).body, buffers)


@pytest.mark.parametrize("message", [Welcome(1, "Echo", "Echo-1", ("a",)), Refusal(3, 0, "failed", "no")])
def test_messages_of_an_agent_come_back(message: Any) -> None:
    ((view, buffers),) = FrameReader().feed(whole(message))
    assert (from_agent(view), buffers) == (message, None)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.randoms())
@settings(max_examples=200)
def test_frames_are_found_however_the_stream_is_cut(bodies: list[bytes], rng: random.Random) -> None:
    stream = b"".join(whole(request(body)) for body in bodies)
    reader, found, at = FrameReader(), [], 0
    while at < len(stream):
        step = rng.randint(1, 60)
        found += reader.feed(stream[at : at + step])
        at += step
    assert [body_of(frame) for frame in found] == bodies
    assert not reader.inside


ARRAYS = [
    np.arange(5, dtype="f4"),
    np.array(3.5),
    np.zeros((0, 4), dtype="i8"),
    np.arange(12, dtype="i2").reshape(3, 4)[:, ::2],
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array([True, False]),
    np.arange(40_000, dtype="f8"),
    np.array(["ab", "c"]),
    np.array(["2026-01-01"], dtype="M8[D]"),
]


@pytest.mark.parametrize("step", [1_000_000, 4096, 7])
def test_arrays_arrive_as_aligned_views_of_what_came(step: int) -> None:
    stream = whole(request({"all": ARRAYS, "again": {"x": ARRAYS[0]}}))
    reader, found = FrameReader(), []
    for at in range(0, len(stream), step):
        found += reader.feed(stream[at : at + step])
    body = body_of(found[0])
    for sent, got in zip([*ARRAYS, ARRAYS[0]], [*body["all"], body["again"]["x"]], strict=True):
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
        assert np.array_equal(got, sent)
        assert got.flags.aligned
        assert not got.flags.owndata


def test_numbers_of_numpy_are_numbers() -> None:
    assert body_of(FrameReader().feed(whole(request([np.float32(0.5), np.int64(3)])))[0]) == [0.5, 3]


@pytest.mark.parametrize("value", [object(), np.array([object()]), np.zeros(2, dtype=[("a", "i4")])])
def test_what_cannot_be_sent_is_said_and_leaves_nothing_behind(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        frames.encode(request([np.arange(3), value]))
    assert body_of(FrameReader().feed(whole(request(1)))[0]) == 1


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 16, b"\0" * 8, b"\1\0\0\0\xff\xff\xff\xff"]
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError, match="is not taken, the limit is"):
        FrameReader().feed(data)


def test_a_frame_over_the_limit_is_refused_before_it_has_come() -> None:
    stream = whole(request(b"x" * 1000))
    with pytest.raises(FrameError):
        FrameReader(limit=500).feed(stream[:8])
    assert len(FrameReader(limit=2000).feed(stream)) == 1


def test_an_array_that_claims_more_than_came_is_refused() -> None:
    described = msgspec.msgpack.encode(("<f8", (1 << 40,)))
    message = msgspec.msgpack.encode(msgspec.msgpack.Ext(arrays.ARRAY, described))
    for buffers in (None, memoryview(b"x" * 8)):
        with pytest.raises((msgspec.MsgspecError, ValueError)):
            arrays.decode(frames.untyped, message, buffers)


def feed(data: bytes) -> None:
    """What a served connection does with bytes; only the two errors that end a connection may come out."""
    try:
        for view, buffers in FrameReader(1 << 20).feed(data):
            message = from_caller(view)
            if isinstance(message, Request):
                arrays.decode(frames.untyped, message.body, buffers)
    except (FrameError, msgspec.MsgspecError, ValueError, TypeError):
        pass


@given(st.binary(max_size=400))
@settings(max_examples=1000)
def test_nothing_that_comes_does_harm(data: bytes) -> None:
    feed(data)


def test_frames_that_were_damaged_do_no_harm_and_leave_nothing_in_memory() -> None:
    """100,000 of them, in a process of their own, because the growth of memory is part of it."""
    done = subprocess.run([sys.executable, FUZZ, "100000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
