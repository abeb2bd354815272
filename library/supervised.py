#!/usr/bin/python
"""Module supervised: one program of the embedded mode's supervisord runs as its file says."""

from __future__ import annotations

DOCUMENTATION = r"""
module: supervised
short_description: Keep a program running under the embedded mode's supervisord
version_added: "0.1.0"
description:
  - Starts supervisord if it does not run, takes in the program's file, and waits until the program runs.
  - Restarts the program only if its file differs from what supervisord runs.
options:
  program: {description: Name of the program in its file., type: str, required: true}
  folder: {description: Folder with C(etc/supervisord.conf) and C(run/)., type: path, required: true}
  timeout_s: {description: Seconds to wait until the program runs., type: int, default: 20}
requirements: [supervisor]
attributes:
  check_mode: {support: full, description: Asks supervisord what differs and changes nothing.}
  diff_mode: {support: none, description: The task that writes the program's file shows the difference.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Consul runs
  supervised:
    program: consul
    folder: "{{ consul_folder }}"
"""

RETURN = r"""
operation: {description: "What was done: started, restarted or nothing.", returned: always, type: str, sample: started}
pid: {description: Process of the program., returned: when it runs, type: int, sample: 4711}
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from ansible.module_utils.basic import AnsibleModule
from supervisor.xmlrpc import SupervisorTransport


def connect(folder: Path) -> Any | None:
    """The supervisor's interface, None if none answers."""
    transport = SupervisorTransport(None, None, f"unix://{folder / 'run' / 'supervisor.sock'}")
    supervisor: Any = ServerProxy("http://127.0.0.1", transport=transport).supervisor
    try:
        supervisor.getState()
    except OSError:
        return None
    return supervisor


def start_supervisord(folder: Path) -> None:
    """Start it as a daemon. Whatever it starts can be told by OUTRIDER_EMBEDDED in its environment."""
    environment = {**os.environ, "OUTRIDER_EMBEDDED": str(folder)}
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(folder / "etc" / "supervisord.conf")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"supervisord does not start: {(result.stderr or result.stdout).strip()}")


def apply(supervisor: Any, program: str, dry: bool) -> str:
    """Make supervisord run what the program's file says. Returns the operation."""
    added, changed, _ = supervisor.reloadConfig()[0]  # reads the files; acts on none
    if dry or program not in (*added, *changed):
        state = supervisor.getProcessInfo(program)["statename"] if program not in added else "STOPPED"
        running = state in ("RUNNING", "STARTING", "BACKOFF")
        if not running and not dry:
            supervisor.startProcess(program, False)
        return "restarted" if program in changed else "nothing" if running else "started"
    if program in changed:
        supervisor.stopProcessGroup(program)
        supervisor.removeProcessGroup(program)
    supervisor.addProcessGroup(program)
    return "restarted" if program in changed else "started"


def wait(supervisor: Any, program: str, timeout_s: float) -> dict[str, Any]:
    """Until the program runs. Raises RuntimeError with the end of its log if it does not."""
    deadline = time.monotonic() + timeout_s
    while True:
        info: dict[str, Any] = supervisor.getProcessInfo(program)
        if info["statename"] == "RUNNING":
            return info
        if info["statename"] == "FATAL" or time.monotonic() > deadline:
            log = Path(info["stdout_logfile"])
            end = "\n".join(log.read_text(errors="replace").splitlines()[-12:]) if log.exists() else ""
            why = info["spawnerr"] or info["description"]
            raise RuntimeError(f"{program} is {info['statename']} ({why}). {log}:\n{end}")
        time.sleep(0.05)


def main() -> None:
    spec = {"program": {"required": True}, "folder": {"type": "path", "required": True}}
    module = AnsibleModule({**spec, "timeout_s": {"type": "int", "default": 20}}, supports_check_mode=True)
    folder, program = Path(module.params["folder"]), module.params["program"]
    try:
        supervisor = connect(folder)
        if not supervisor and module.check_mode:
            module.exit_json(changed=True, operation="started")
        if not supervisor:
            start_supervisord(folder)
        fresh, supervisor = not supervisor, supervisor or connect(folder)
        operation = apply(supervisor, program, module.check_mode)
        info = {} if module.check_mode else wait(supervisor, program, module.params["timeout_s"])
    except (RuntimeError, Fault, OSError) as error:
        module.fail_json(msg=str(error))
    operation = "started" if fresh else operation
    module.exit_json(changed=operation != "nothing", operation=operation, pid=info.get("pid"))


if __name__ == "__main__":
    main()
