#!/usr/bin/python
"""Module agent_backup: make, check, restore and prune the backups of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_backup
short_description: Back up agents of a host, and put backups back
version_added: "0.1.0"
description:
  - With O(state=present) backs up an agent, an instance, or all that the host has. A backup counts once it was restored
    into scratch and checked. An unchanged source makes no new one.
  - With O(state=verified) restores backups into scratch once more, and fails naming each that is damaged.
  - With O(state=restored) puts one back, the state of an instance only while it does not run, documents in Consul by
    check-and-set.
  - With O(state=pruned) removes outdated ones. The last that was proved always stays.
  - Works on the host that has the backups, as root with systemd.
options:
  name: {description: "An agent or an instance; or the id of a backup, to verify or restore that one.", type: str}
  levels:
    description: "By default all: those that an agent has, and Consul whole on its servers, where no name is given."
    type: list
    elements: str
    choices: [configuration, kv, state, snapshot]
    default: []
  to: {description: "With O(state=restored), a new folder to restore into instead.", type: path}
  config_file: {description: "The shim's configuration.", type: path, default: /etc/outrider/outriderd.toml}
  folder: {description: "Folder of the backups, by default the configured one.", type: path}
  consul_token_file: {description: "Token for Consul, by default the host's, or on a server its own.", type: path}
  consul_program: {description: "Consul's program, where it is not found.", type: path}
  keep_daily: {description: "With O(state=pruned), days that keep their last one.", type: int, default: 7}
  keep_weekly: {description: "With O(state=pruned), weeks that keep their last one.", type: int, default: 4}
  state:
    description: What shall be.
    type: str
    choices: [present, verified, restored, pruned]
    default: present
attributes:
  check_mode: {support: full, description: Reads everything and writes nothing.}
  diff_mode: {support: full, description: "What is new or goes; how documents differ, without secret-looking values."}
requirements: [outrider]
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Back up all that this host has
  agent_backup:
  vars:
    ansible_python_interpreter: /opt/outrider/venv/bin/python

- name: Prove every backup of an agent again
  agent_backup: {name: MemoryClient, state: verified}

- name: Put the state of a stopped instance back
  agent_backup: {name: MemoryClient-1, levels: [state], state: restored}
"""

RETURN = r"""
backups: {description: "Backups that were made, checked or restored.", returned: success, type: list, elements: dict}
made: {description: "Level and name of each new one.", returned: success, type: list, elements: str}
removed: {description: Ids of pruned backups., returned: success, type: list, elements: str}
kept: {description: "Where the state is that was replaced.", returned: success, type: str}
failed_backups:
  description: "What could not be made, or is damaged: each C(subject), C(level), C(error), C(hint)."
  returned: always
  type: list
  elements: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

MISSING = ""
try:
    from msgspec import to_builtins

    from outrider.errors import OutriderError
    from outrider.migration.backup.orders import carry_out
except ImportError as error:
    MISSING = f"{missing_required_lib('outrider')} ({error})"

ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str"},
    "levels": {
        "type": "list",
        "elements": "str",
        "choices": ["configuration", "kv", "state", "snapshot"],
        "default": [],
    },
    "to": {"type": "path"},
    "config_file": {"type": "path", "default": "/etc/outrider/outriderd.toml"},
    "folder": {"type": "path"},
    "consul_token_file": {"type": "path", "no_log": False},
    "consul_program": {"type": "path"},
    "keep_daily": {"type": "int", "default": 7},
    "keep_weekly": {"type": "int", "default": 4},
    "state": {"type": "str", "choices": ["present", "verified", "restored", "pruned"], "default": "present"},
}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, required_if=[("state", "restored", ("name",))], supports_check_mode=True)
    if MISSING:
        module.fail_json(msg=f"{MISSING}; set ansible_python_interpreter to the venv that Outrider is installed in")
    try:
        result = to_builtins(carry_out(module.params, module.check_mode))
    except OutriderError as error:
        module.fail_json(msg=str(error), failed_backups=[])
    for warning in result.pop("warnings"):
        module.warn(warning)
    if result["failed_backups"]:
        said = (f"{f['subject']} {f['level']}: {f['error']}\n  {f['hint']}" for f in result["failed_backups"])
        module.fail_json(msg="\n".join(said), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
