"""The saved launch of an instance, from which its systemd unit starts it. Paths of secrets, never their values."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import msgspec

from outrider.errors import HostError
from outrider.host.supervisor import Launch


def launch_file(state_dir: Path, instance: str) -> Path:
    """Where it is."""
    return state_dir / "launch" / f"{instance}.json"


def save_launch(state_dir: Path, launch: Launch) -> Path:
    """Write it for the shim's user alone, or for the agent's if it has one and we may. Raises HostError."""
    path = launch_file(state_dir, launch.instance)
    scratch = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        scratch.unlink(missing_ok=True)
        with open(scratch, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(msgspec.json.encode(launch))
        if launch.user and os.geteuid() == 0:
            os.chown(scratch, pwd.getpwnam(launch.user).pw_uid, -1)
        scratch.replace(path)
    except KeyError:
        raise HostError(f"the system user {launch.user} does not exist") from None
    except OSError as error:
        raise HostError(f"{launch.instance}: {error.filename}: {error.strerror}") from error
    return path
