"""File types by content: the model of the package magika, which knows 214 of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from models.base import bytes_of, text_of, weights
from models.onnx import session

FOLDER = ("models", "standard_v3_3")


class Magika:
    """payload {"text": "..."} or {"data": base64} -> label, score (0 to 1), confident (score above its threshold)."""

    def __init__(self) -> None:
        self.warm_up: dict[str, Any] = {"text": "import os\n\nprint(os.getcwd())\n"}
        config = json.loads(weights("magika", *FOLDER, "config.min.json").read_bytes())
        self._session = session(weights("magika", *FOLDER, "model.onnx"))
        self._labels: list[str] = config["target_labels_space"]
        self._thresholds: dict[str, float] = config["thresholds"]
        self._threshold: float = config["medium_confidence_threshold"]
        self._sizes: tuple[int, int] = config["beg_size"], config["end_size"]
        self._block: int = config["block_size"]
        self._padding: int = config["padding_token"]
        self._min: int = config["min_file_size_for_dl"]

    def infer(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError."""
        data = text_of(payload, "text").encode() if "text" in payload else bytes_of(payload, "data")
        if len(data) < self._min:
            raise ValueError(f"{len(data)} bytes are too few to tell, at least {self._min} are needed")
        scores = self._session.run(None, {"bytes": self._features(data)})[0][0]
        best = int(np.argmax(scores))
        label, score = self._labels[best], float(scores[best])
        confident = score >= self._thresholds.get(label, self._threshold)
        return {"label": label, "score": round(score, 4), "confident": confident}

    def _features(self, data: bytes) -> np.ndarray[Any, np.dtype[np.int32]]:
        """The beginning and the end without their white space, as numbers, padded in the middle."""
        first, last = self._sizes
        begin = data[: self._block].lstrip()[:first]
        end = data[-self._block :].rstrip()[-last:]
        row = np.full((1, first + last), self._padding, np.int32)
        row[0, : len(begin)] = np.frombuffer(begin, np.uint8)
        row[0, first + last - len(end) :] = np.frombuffer(end, np.uint8)
        return row


def load() -> Magika:
    """Raises FileNotFoundError naming the package that is missing."""
    return Magika()
