"""SHA-256 of files, and the refusal of one that has another."""

from __future__ import annotations

import hashlib
from pathlib import Path

from outrider.errors import ReleaseError


def check_digest(archive: Path, expected: str) -> None:
    """Raises ReleaseError with both checksums if they differ."""
    actual = digest_of(archive)
    if actual != expected:
        raise ReleaseError(
            f"{archive}: wrong checksum\n  expected sha256 {expected}\n  found    sha256 {actual}",
            hint="the file was changed or damaged on its way; if the change is wanted, correct code.sha256",
        )


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
