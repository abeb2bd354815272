"""The fleet's key for datagrams, and the moment of start that tells a shim's sessions apart."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import stat
import time
from pathlib import Path

from outrider.errors import HostError

KEY_BYTES = 32
BRINGS = "the role `outrider` brings it: run site.yml"


def read_key(path: Path) -> bytes:
    """The key that `path` holds in base64. Raises HostError if it is missing, damaged or open to others."""
    try:
        mode = path.stat().st_mode
        key = base64.b64decode(path.read_bytes().strip(), validate=True)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}", hint=BRINGS) from error
    except binascii.Error:
        key = b""
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise HostError(f"{path} may be used by others", hint=f"chmod 0600 {path}")
    if len(key) != KEY_BYTES:
        raise HostError(f"{path} is not {KEY_BYTES} bytes in base64", hint=BRINGS)
    return key


def next_start(path: Path) -> int:
    """The wall clock in nanoseconds, but later than what `path` says of the last start, and kept there.

    Peers refuse a session that started before the last one that they heard: a clock that was put back would make this
    host silent to them.
    """
    last = 0
    with contextlib.suppress(OSError, ValueError):
        last = int(path.read_text())
    started = max(time.time_ns(), last + 1)
    scratch = path.with_suffix(".tmp")
    # On a full disk the clock alone must do.
    with contextlib.suppress(OSError):
        with open(scratch, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(str(started))
        scratch.replace(path)
    return started
