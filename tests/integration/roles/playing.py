"""Runs a role of this checkout against a throw-away folder, as a user would: through ansible-playbook."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Outcome:
    """What ansible-playbook said. `changed`: tasks that changed something."""

    status: int
    output: str
    changed: int


def play(
    role: str,
    folder: Path,
    variables: dict[str, Any],
    *options: str,
    facts: dict[str, str] | None = None,
    tasks_from: str = "main",
    hosts: tuple[str, ...] = ("here",),
) -> Outcome:
    """Run one role on host `here`, whose facts may be given instead of gathered. No other host does anything."""
    folder.mkdir(exist_ok=True)
    inventory, playbook = folder / "hosts.yml", folder / "play.yml"
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory.write_text(json.dumps({"all": {"hosts": dict.fromkeys(hosts, host)}}))
    one: dict[str, Any] = {"hosts": "here", "gather_facts": not facts}
    one["tasks"] = [{"ansible.builtin.import_role": {"name": role, "tasks_from": tasks_from}}]
    if facts:
        one["vars"] = {"ansible_facts": facts}
    else:
        one["gather_subset"] = ["!all", "!min", "platform"]
    playbook.write_text(json.dumps([one]))
    return run(playbook, inventory, folder, variables, *options)


def run(
    playbook: Path, inventory: Path, folder: Path, variables: dict[str, Any], *options: str, **environ: str
) -> Outcome:
    """Run a playbook. What Ansible keeps goes into the folder."""
    given = folder / "vars.json"
    given.write_text(json.dumps(variables))
    environment = {
        **os.environ,
        **environ,
        "ANSIBLE_HOME": str(folder / "ansible"),
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(folder / "facts"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "ansible" / "tmp"),
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [
        sys.executable,
        "-m",
        "ansible",
        "playbook",
        "-i",
        str(inventory),
        "-e",
        f"@{given}",
        str(playbook),
        *options,
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=180)
    output = done.stdout + done.stderr
    recap = re.search(r"changed=(\d+)", output)
    return Outcome(done.returncode, output, int(recap[1]) if recap else 0)
