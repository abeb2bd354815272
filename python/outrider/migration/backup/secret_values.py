"""A document without values that look secret, and with those that are in use put in again."""

from __future__ import annotations

from typing import Any

import msgspec

from outrider.errors import BackupError
from outrider.migration.diff import looks_secret

KEPT_OUT = "(not in the backup)"


def without_secrets(document: bytes) -> bytes:
    """What `secrets` names are files, and stays; the values themselves never leave Consul and the host."""
    return msgspec.json.encode(_cleaned(msgspec.json.decode(document)))


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(key, item) for key, item in value.items()}
    return [_cleaned(item) for item in value] if isinstance(value, list) else value


def _clean(key: str, item: Any) -> Any:
    if key == "secrets" or key.endswith("_FILE"):
        return item  # paths
    return KEPT_OUT if isinstance(item, str) and looks_secret(key) else _cleaned(item)


def with_secrets(document: bytes, current: bytes | None, of: str) -> bytes:
    """The same with the values of `current`, the document in use. Raises BackupError naming those that it lacks."""
    lacking: list[str] = []
    filled = _filled(msgspec.json.decode(document), msgspec.json.decode(current or b"null"), of, lacking)
    if lacking:
        raise BackupError(
            f"these values are not in the backup, and not in use any more: {', '.join(lacking)}",
            hint="a backup of the level kv has them; or give them in the fleet file and run site.yml",
        )
    return msgspec.json.encode(filled)


def _filled(value: Any, current: Any, place: str, lacking: list[str]) -> Any:
    if value == KEPT_OUT:
        if not isinstance(current, str):
            lacking.append(place)
        return current
    if isinstance(value, dict):
        there = current if isinstance(current, dict) else {}
        return {key: _filled(item, there.get(key), f"{place}.{key}", lacking) for key, item in value.items()}
    if isinstance(value, list):
        old = current if isinstance(current, list) and len(current) == len(value) else [None] * len(value)
        return [_filled(item, old[number], f"{place}.{number}", lacking) for number, item in enumerate(value)]
    return value
