"""Pictures in payloads: base64 of a PNG or JPEG file, to a Pillow image."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from models.base import bytes_of

MAX_PIXELS = 12_000_000
FORMATS = ("PNG", "JPEG")


def image_of(payload: dict[str, Any]) -> Image.Image:
    """The picture in payload["image"]. Raises ValueError."""
    data = bytes_of(payload, "image")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        # The size stands in the head: a picture that would fill the memory is refused before it is unpacked.
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"image has {picture.width} x {picture.height} pixels, at most {MAX_PIXELS} are read")
        return picture.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image is not a readable {' or '.join(FORMATS)} file: {error}") from error
