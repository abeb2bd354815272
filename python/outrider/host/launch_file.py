"""What an instance's systemd unit finds of it: the saved launch, its log and other files, given to the unit's user."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from outrider.calls.endpoint import socket_path
from outrider.errors import HostError
from outrider.host.access import READ, WRITE, grant, grant_folder, passable_folder, user_id
from outrider.host.supervisor import Launch


def launch_file(state_dir: Path, instance: str) -> Path:
    """Where it is."""
    return state_dir / "launch" / f"{instance}.json"


def hand_over(state_dir: Path, launch: Launch, user: str) -> Path:
    """Save the launch, make its log, and let `user` use these and the files that its environment names.

    Paths of secrets, never their values. Raises HostError.
    """
    path = launch_file(state_dir, launch.instance)
    scratch = path.with_suffix(".tmp")
    log = Path(launch.log_path)
    try:
        uid = user_id(user)
        passable_folder(path.parent)
        scratch.unlink(missing_ok=True)
        with open(scratch, "xb", opener=_private) as file:
            file.write(msgspec.json.encode(launch))
        grant(scratch, uid, READ)
        scratch.replace(path)
        passable_folder(log.parent)
        with open(log, "ab", opener=_private):
            pass
        grant(log, uid, READ | WRITE)
        for name, rights in (("OUTRIDER_CONFIG", READ), ("OUTRIDER_HEARTBEAT", READ | WRITE)):
            if given := launch.env.get(name):
                grant(Path(given), uid, rights)
        if "OUTRIDER_PORT_CALL" in launch.env:
            calls = socket_path(Path(launch.env["OUTRIDER_RUNTIME"]), launch.instance).parent
            if uid not in (0, os.geteuid()):
                grant_folder(calls, uid)
    except OSError as error:
        raise HostError(f"{launch.instance}: {error.filename or state_dir}: {error.strerror}") from error
    return path


def _private(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW, 0o600)
