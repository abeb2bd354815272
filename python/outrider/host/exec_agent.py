"""What `outrider-agent@INSTANCE` runs: read the saved launch of the instance and become its program.

    python -m outrider.host.exec_agent INSTANCE [--state-dir DIR]

It runs as the agent's user, which the shim gave the launch, the log and a few more files. It keeps the pid, so the
unit's main process is the agent itself. Its exit statuses are those of systemd and env(1): 78 the launch cannot be read
or the log not be written, 127 no such program, 126 it cannot be run, each after one line that says why: in the journal
until the log is open, then in the log.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
from pathlib import Path
from typing import NoReturn

import msgspec

from outrider.host.launch_file import launch_file
from outrider.host.supervisor import Launch

CONFIG_ERROR = 78
CANNOT_RUN = 126
NOT_FOUND = 127
DEFAULT_STATE_DIR = "/var/lib/outrider"


def main(argv: list[str]) -> NoReturn:
    """Become the program. Does not return."""
    if not argv or argv[0].startswith("-"):
        _end(CONFIG_ERROR, "usage: python -m outrider.host.exec_agent INSTANCE [--state-dir DIR]")
    state_dir = argv[2] if argv[1:2] == ["--state-dir"] and len(argv) > 2 else DEFAULT_STATE_DIR
    path = launch_file(Path(state_dir), argv[0])
    try:
        launch = msgspec.json.decode(path.read_bytes(), type=Launch)
    except OSError as error:
        _end(CONFIG_ERROR, f"{path}: {error.strerror}")
    except msgspec.MsgspecError as error:
        _end(CONFIG_ERROR, f"{path}: {error}")
    _write_to(launch.log_path)
    _check_secrets(launch)
    _become(launch)


def _write_to(log_path: str) -> None:
    """Both outputs go to the log from here on. It is opened to append, so it can be emptied while we write."""
    try:
        log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        _end(CONFIG_ERROR, f"{log_path}: {error.strerror}")
    for output in (1, 2):
        os.dup2(log, output)


def _check_secrets(launch: Launch) -> None:
    """As the agent's own user, which the shim could not do."""
    for name, path in launch.env.items():
        if name in launch.secrets and not os.access(path, os.R_OK):
            _end(CONFIG_ERROR, f"secret {name}: {path}: cannot be read")


def _become(launch: Launch) -> NoReturn:
    try:
        os.chdir(launch.cwd)
        os.execvpe(launch.argv[0], launch.argv, _home() | launch.env)
    except FileNotFoundError as error:
        _end(NOT_FOUND, f"{error.filename or launch.argv[0]}: {error.strerror}")
    except OSError as error:
        _end(CANNOT_RUN, f"{error.filename or launch.argv[0]}: {error.strerror}")


def _home() -> dict[str, str]:
    """What a program expects to know of its user, unless the agent declares otherwise."""
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(os.getuid())
        return {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    return {}


def _end(status: int, why: str) -> NoReturn:
    print(f"outrider: {why}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
