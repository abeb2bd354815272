"""Reading printed lines: the recogniser of the package rapidocr-onnxruntime (PP-OCRv4), without opencv.

Lines are found by their ink on a plain background; the package's own finder of text in photographs is not used.
"""

from __future__ import annotations

import base64
import io
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.base import weights
from models.images import image_of
from models.onnx import session

HEIGHT = 48
MAX_WIDTH = 3200
MAX_LINES = 64
INK = 64  # levels of grey between ink and background
MARGIN = 4


class Ocr:
    """payload {"image": base64 of a PNG or JPEG with printed lines} -> lines: text and confidence (0 to 1) of each."""

    def __init__(self) -> None:
        self._session = session(weights("rapidocr_onnxruntime", "models", "ch_PP-OCRv4_rec_infer.onnx"))
        letters = self._session.get_modelmeta().custom_metadata_map["character"].splitlines()
        self._letters = ["", *letters, " "]  # class 0 is "nothing here", the last one is the space
        self.warm_up: dict[str, Any] = {"image": _blank()}

    def infer(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError."""
        image = image_of(payload)
        boxes = line_boxes(np.asarray(image.convert("L"), np.int16))
        lines = [self.read(image.crop(box)) for box in boxes[:MAX_LINES]]
        found = [{"text": text, "confidence": round(score, 4)} for text, score in lines if text.strip()]
        return {"lines": found}

    def read(self, line: Image.Image) -> tuple[str, float]:
        """The text of one line and how sure it is: 0 to 1, the mean over its letters."""
        width = min(MAX_WIDTH, max(HEIGHT, round(line.width * HEIGHT / line.height)))
        pixels = np.asarray(line.resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)[:, :, ::-1]  # BGR
        features = (pixels / 127.5 - 1).transpose(2, 0, 1)[None]
        steps = self._session.run(None, {"x": features})[0][0]
        classes, scores = steps.argmax(axis=1), steps.max(axis=1)
        # CTC: what repeats from one step to the next is one letter, class 0 parts two that are the same.
        changed = np.concatenate([[True], classes[1:] != classes[:-1]])
        kept = changed & (classes != 0)
        text = "".join(self._letters[number] for number in classes[kept])
        return text, float(scores[kept].mean()) if kept.any() else 0.0


def line_boxes(grey: NDArray[np.int16]) -> list[tuple[int, int, int, int]]:
    """Left, top, right, bottom of each run of rows with ink, top to bottom."""
    ink = np.abs(grey - int(np.median(grey))) > INK
    rows = np.concatenate([[False], ink.any(axis=1), [False]])
    edges = np.flatnonzero(rows[1:] != rows[:-1])
    height, width = grey.shape
    boxes = []
    for top, bottom in list(pairwise(edges.tolist()))[::2]:
        columns = np.flatnonzero(ink[top:bottom].any(axis=0))
        left, right = int(columns[0]), int(columns[-1]) + 1
        boxes.append(
            (max(0, left - MARGIN), max(0, top - MARGIN), min(width, right + MARGIN), min(height, bottom + MARGIN))
        )
    return boxes


def _blank() -> str:
    """A stroke of ink, so that the warm-up goes all the way."""
    image = Image.new("RGB", (HEIGHT * 2, HEIGHT), "white")
    image.paste("black", (HEIGHT, 8, HEIGHT + 6, HEIGHT - 8))
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def load() -> Ocr:
    """Raises FileNotFoundError naming the package that is missing."""
    return Ocr()
