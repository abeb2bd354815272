"""Ends the embedded mode of this checkout: agents drained, Consul and shim stopped, no process and no file left.

Only the standard library, so that it works when .venv is gone; every step works when its object is gone already.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path

DRAIN_S = 60.0
STOP_S = 10.0


class ShimConnection(http.client.HTTPConnection):
    """HTTP to the shim's Unix socket, through the folder's descriptor so that a path of any length fits."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DRAIN_S)
        self.path = path

    def connect(self) -> None:
        folder = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/{self.path.name}")
        finally:
            os.close(folder)


def say(text: str) -> None:
    print(f"down: {text}", flush=True)


def drain(socket_path: Path) -> None:
    """Ask the shim to take the host out and to stop every agent; returns when it has, or when it does not answer."""
    try:
        connection = ShimConnection(socket_path)
        connection.request("POST", "/v1/shutdown")
        connection.getresponse().read()
        say("the shim stopped and deregistered its agents")
    except (OSError, http.client.HTTPException):
        say("no shim answers")


def ours(folder: Path) -> list[int]:
    """Processes that the embedded mode of this checkout started, by the environment they were given."""
    marks = {f"OUTRIDER_EMBEDDED={folder}".encode(), f"OUTRIDER_RUNTIME={folder}/run".encode()}
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            environment = (entry / "environ").read_bytes().split(b"\0")
            # A user's shell may hold OUTRIDER_RUNTIME too; only an agent also has an instance's name.
            agent = any(variable.startswith(b"OUTRIDER_INSTANCE=") for variable in environment)
            mark = marks.intersection(environment)
            if mark and (agent or any(m.startswith(b"OUTRIDER_EMBEDDED=") for m in mark)):
                found.append(int(entry.name))
    return found


def end(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def gone(folder: Path, timeout_s: float) -> bool:
    """True once none of ours is left."""
    deadline = time.monotonic() + timeout_s
    while ours(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def stop_supervisord(folder: Path) -> bool:
    """SIGTERM makes it stop Consul and the shim, and end. False if it does not run."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / "run" / "supervisord.pid").read_text())
        if pid in ours(folder):
            os.kill(pid, signal.SIGTERM)
            say("Consul and the shim are stopping")
            return True
    return False


def stop_all(folder: Path) -> bool:
    """In order, gently, and then by force what is left. True once no process is there."""
    drain(folder / "run" / "outriderd.sock")
    stopping = stop_supervisord(folder)
    if not gone(folder, STOP_S if stopping else 0):
        left = ours(folder)
        say(f"{len(left)} processes are still there; they are told to end")
        end(left, signal.SIGTERM)
        if not gone(folder, STOP_S):
            end(ours(folder), signal.SIGKILL)
    return gone(folder, STOP_S)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent.parent / ".outrider")
    parser.add_argument("--check", action="store_true", help="only say what runs; exit status 3 if something does")
    parser.add_argument("--keep-folder", action="store_true", help="end processes only")
    args = parser.parse_args()
    folder: Path = args.folder.absolute()
    if args.check:
        print(f"{len(ours(folder))} processes run")
        return 3 if ours(folder) else 0
    if not folder.exists() and not ours(folder):
        say("nothing is up")
        return 0
    if not stop_all(folder):
        print(f"down: these processes cannot be ended: {ours(folder)}", file=sys.stderr)
        return 1
    if not args.keep_folder:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            print(f"down: {folder} cannot be removed whole; it belongs to {folder.owner()}", file=sys.stderr)
            return 1
    say("no process is left" if args.keep_folder else "no process is left, and .outrider is removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
