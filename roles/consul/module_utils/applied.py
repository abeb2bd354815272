"""Whether a service runs with its present files: its unit wrote what they were as it started."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

START_S = 10  # between writing the file and starting the process lie milliseconds


def digest(inputs: Iterable[str]) -> str:
    """The output of `sha256sum INPUTS | sha256sum`, without its line feed. A file that is not there counts as empty."""
    lines = "".join(f"{_sha256(Path(path))}  {path}\n" for path in inputs)
    return f"{hashlib.sha256(lines.encode()).hexdigest()}  -"


def is_applied(applied_file: str, inputs: Iterable[str], started: float = 0) -> bool:
    """Whether what the unit wrote is what it would write now.

    `started`: when the service's main process was started, in Unix seconds. What was written long before was written
    for another start: the unit that started this process did not write it.
    """
    path = Path(applied_file)
    try:
        return path.read_text().strip() == digest(inputs) and path.stat().st_mtime > started - START_S
    except OSError:
        return False


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return hashlib.sha256(b"").hexdigest()
