"""Is somebody speaking: the Silero voice activity detector of the package silero-vad."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.base import bytes_of, weights
from models.onnx import session

RATE, WINDOW, CONTEXT = 16_000, 512, 64  # samples a second, in a step, and repeated from the step before
MAX_S = 60
SPEECH = 0.5


class Vad:
    """payload {"pcm16": base64 of 16-bit mono samples at 16 kHz} -> speech (bool), share of steps with it, highest."""

    def __init__(self) -> None:
        self.warm_up: dict[str, Any] = {"pcm16": base64.b64encode(bytes(2 * RATE // 4)).decode()}
        self._session = session(weights("silero_vad", "data", "silero_vad_16k_op15.onnx"))

    def infer(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError."""
        if payload.get("rate", RATE) != RATE:
            raise ValueError(f"rate is {payload['rate']!r}: {RATE} samples a second are expected")
        data = bytes_of(payload, "pcm16")
        if len(data) % 2 or not 2 * WINDOW <= len(data) <= 2 * RATE * MAX_S:
            raise ValueError(f"pcm16 holds {len(data)} bytes: {WINDOW} samples to {MAX_S} s of 2 bytes are expected")
        chances = self.chances(np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768))
        return {
            "speech": bool(chances.max() >= SPEECH),
            "share": round(float((chances >= SPEECH).mean()), 4),
            "highest": round(float(chances.max()), 4),
            "seconds": round(len(data) / 2 / RATE, 3),
        }

    def chances(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The chance of speech in each whole step of WINDOW samples; samples are from -1 to 1."""
        state = np.zeros((2, 1, 128), np.float32)
        padded = np.concatenate([np.zeros(CONTEXT, np.float32), samples])
        rate = np.array(RATE, np.int64)
        chances = []
        for begin in range(0, len(samples) - WINDOW + 1, WINDOW):
            step = padded[None, begin : begin + CONTEXT + WINDOW]
            chance, state = self._session.run(None, {"input": step, "state": state, "sr": rate})
            chances.append(chance[0, 0])
        return np.array(chances, np.float32)


def load() -> Vad:
    """Raises FileNotFoundError naming the package that is missing."""
    return Vad()
