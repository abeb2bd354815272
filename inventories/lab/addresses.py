#!/usr/bin/env python3
"""Where the lab's hosts are and how to reach them, as an Ansible inventory: `make lab-up` chose it at random."""

import json
import os
from pathlib import Path

FOLDER = Path(os.environ.get("OUTRIDER_LAB") or Path(__file__).resolve().parents[2] / ".lab")
OPTIONS = f'-o UserKnownHostsFile="{FOLDER}/known_hosts" -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes'

try:
    lab = json.loads((FOLDER / "lab.json").read_text())
except FileNotFoundError:
    lab = {"hosts": {}}
variables = {
    name: {
        "ansible_host": address,
        "ansible_user": lab["user"],
        "ansible_ssh_private_key_file": str(FOLDER / "key"),
        "ansible_ssh_common_args": OPTIONS,
    }
    for name, address in lab["hosts"].items()
}
print(json.dumps({"_meta": {"hostvars": variables}, "all": {"hosts": list(variables)}}))
