"""Whether a service runs with its present files: its unit wrote what they were as it started."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(inputs: Iterable[str]) -> str:
    """The output of `sha256sum INPUTS | sha256sum`, without its line feed. A file that is not there counts as empty."""
    lines = "".join(f"{_sha256(Path(path))}  {path}\n" for path in inputs)
    return f"{hashlib.sha256(lines.encode()).hexdigest()}  -"


def is_applied(applied_file: str, inputs: Iterable[str], invocation: str = "") -> bool:
    """Whether what the unit wrote is what it would write now.

    `invocation`: which start of the service is running, as systemd names it; the unit wrote it on a second line. What
    was written for another start says nothing: the unit that made this one did not write it.
    """
    try:
        digest_then, *invocation_then = Path(applied_file).read_text().splitlines()
    except (OSError, ValueError):
        return False
    return digest_then == digest(inputs) and (not invocation or invocation_then == [invocation])


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return hashlib.sha256(b"").hexdigest()
