"""What a start-up file says for all its agents: environment, limits and health check intervals."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct, field

from outrider.fleet.source import Place, Source

NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
# Of the layout that the file's own starter made; here an agent's code has a folder of its own.
LAYOUT = ("PYTHONPATH", "PATH", "PWD", "HOME")


class Settings(Struct, frozen=True, omit_defaults=True):
    """The part of `global_settings` that is carried. What the file does not say is None or empty."""

    environment: dict[str, str] = field(default_factory=dict)
    cpu: float | None = None
    memory_mib: int | None = None
    threads: int | None = None
    interval_s: float | None = None
    timeout_s: float | None = None
    failures: int | None = None


def read_settings(source: Source, raw: Any, warnings: list[str]) -> Settings:
    """Read `global_settings`; what cannot be carried is added to `warnings`."""
    place: Place = ("global_settings",)
    parts = raw if isinstance(raw, dict) else {}
    if raw is not None and not isinstance(raw, dict):
        warnings.append(source.at(place, f"found {raw!r}, expected a mapping; not imported"))
    for key in parts:
        if key not in ("environment", "resource_limits", "health_checks"):
            warnings.append(source.at((*place, key), f"`{key}` is not known here and is not imported"))
    limits = _Numbers(source, parts.get("resource_limits"), (*place, "resource_limits"), warnings)
    health = _Numbers(source, parts.get("health_checks"), (*place, "health_checks"), warnings)
    percent = limits.take("cpu_percent", 0.1, 1e6)
    memory_mib, threads = limits.take("memory_mb", 1, 1e9), limits.take("max_threads", 1, 1e6)
    interval_s, timeout_s = health.take("interval_seconds", 0.05, 3600), health.take("timeout_seconds", 0.01, 3600)
    failures = health.take("retries", 1, 1000)
    limits.rest()
    health.rest()
    if interval_s:
        slow_s = interval_s * (failures or 1)
        text = f"checks every {interval_s:g} s find a hang after {slow_s:g} s: not carried, ours are every 0.5 s"
        warnings.append(source.at((*place, "health_checks"), f"{text} (--keep-intervals carries them)"))
    return Settings(
        environment_of(source, parts.get("environment"), (*place, "environment"), warnings),
        percent / 100 if percent else None,
        int(memory_mib) if memory_mib else None,
        int(threads) if threads else None,
        interval_s,
        timeout_s,
        int(failures) if failures else None,
    )


def environment_of(source: Source, raw: Any, place: Place, warnings: list[str]) -> dict[str, str]:
    """Variables that mean the same without the shell and the folder that the file was written for."""
    if raw is not None and not isinstance(raw, dict):
        warnings.append(source.at(place, f"found {raw!r}, expected a mapping; not imported"))
    carried = {}
    for key, value in (raw if isinstance(raw, dict) else {}).items():
        text = {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
        if not NAME.match(str(key)) or isinstance(value, dict | list) or value is None or "\0" in text:
            warnings.append(source.at((*place, key), f"`{key}` = {value!r} is no variable; not carried"))
        elif key in LAYOUT or "${" in text:
            warnings.append(source.at((*place, key), f"{key} = {text} is for the old layout; not carried"))
        else:
            carried[str(key)] = text
    return carried


class _Numbers:
    """A mapping of numbers, taken one by one; what is left is reported."""

    def __init__(self, source: Source, raw: Any, place: Place, warnings: list[str]) -> None:
        self._source, self._place, self._warnings = source, place, warnings
        self._raw = dict(raw) if isinstance(raw, dict) else {}
        if raw is not None and not isinstance(raw, dict):
            warnings.append(source.at(place, f"found {raw!r}, expected a mapping; not imported"))

    def take(self, key: str, least: float, most: float) -> float | None:
        value = self._raw.pop(key, None)
        if value is None:
            return None
        number = float(str(value).strip()) if re.fullmatch(r"\s*\d{1,12}(\.\d{1,9})?\s*", str(value)) else -1
        if least <= number <= most:
            return number
        text = f"{value!r} is no number from {least:g} to {most:g}; not carried"
        self._warnings.append(self._source.at((*self._place, key), text))
        return None

    def rest(self) -> None:
        for key in self._raw:
            self._warnings.append(self._source.at((*self._place, key), f"`{key}` is not known here; not carried"))
