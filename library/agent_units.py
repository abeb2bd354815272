#!/usr/bin/python
"""Module agent_units: user, limits and state folder of each instance that may run on a host, in drop-ins."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_units
short_description: What each instance of a host may use, in its systemd unit
version_added: "0.1.0"
description:
  - Writes C(outrider-agent@INSTANCE.service.d/50-outrider.conf) for each instance that may run on the host, wherever it
    runs now, so that a failover or a migration finds its limits there. Removes those of instances that no longer may.
  - C(memory_mib) is a limit, without swap. C(cpu) is the instance's weight against the others, not a quota. An agent
    that has a user runs as that one; C(root), C(outrider) and C(consul) are refused.
  - Files beside it are left alone. Tells systemd of what changed, also of what an earlier run wrote and did not tell.
options:
  definition: {description: "The compiled fleet, as M(fleet) returned it.", type: dict, required: true}
  host: {description: Name of this host in the inventory., type: str, required: true}
  units_folder: {description: Folder of the units., type: path, default: /etc/systemd/system}
attributes:
  check_mode: {support: full, description: Writes nothing.}
  diff_mode: {support: full, description: Each drop-in before and after.}
requirements: [outrider]
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: What each instance may use, in its unit
  agent_units:
    definition: "{{ checked.definition }}"
    host: "{{ inventory_hostname }}"
  vars:
    ansible_python_interpreter: /opt/outrider/venv/bin/python
"""

RETURN = r"""
written: {description: Files that were written or would be., returned: always, type: list, elements: str}
removed: {description: Files that were removed or would be., returned: always, type: list, elements: str}
reloaded: {description: "Whether systemd was told, or would be.", returned: always, type: bool, sample: true}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

MISSING = ""
try:
    from outrider.errors import HostError, OutriderError
    from outrider.host.unit_files import changes, write
    from outrider.host.units import drop_ins
    from outrider.migration.compile import read_definition
except ImportError as error:
    MISSING = f"{missing_required_lib('outrider')} ({error})"

ARGUMENTS = {
    "definition": {"type": "dict", "required": True},
    "host": {"type": "str", "required": True},
    "units_folder": {"type": "path", "default": "/etc/systemd/system"},
}
SYSTEMD = Path("/run/systemd/system")  # there while systemd runs the host


def wanted(definition: dict, host: str) -> dict[str, str]:
    """Instance to its drop-in. Raises OutriderError."""
    fleet = read_definition(definition)
    found = next((each for each in fleet.hosts if each.name == host), None)
    if found is None:
        names = ", ".join(each.name for each in fleet.hosts)
        raise HostError(f"host {host} is not in the definition", hint=f"it has: {names}")
    return drop_ins(fleet.agents, found)


def systemctl(module: AnsibleModule, *words: str) -> str:
    status, output, errors = module.run_command(["systemctl", *words])
    if status:
        module.fail_json(msg=f"systemctl {' '.join(words)}: {errors.strip() or status}")
    return output


def main() -> None:
    # Not logged: a definition is large, and its environment is nobody's business in the system's journal.
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, no_log=True)
    if MISSING:
        module.fail_json(msg=f"{MISSING}; set ansible_python_interpreter to the venv that Outrider is installed in")
    try:
        found = changes(Path(module.params["units_folder"]), wanted(module.params["definition"], module.params["host"]))
        if not module.check_mode:
            write(found)
    except OutriderError as error:
        module.fail_json(msg=str(error))
    stale = SYSTEMD.exists() and (
        bool(found) or "yes" in systemctl(module, "show", "--property=NeedDaemonReload", "outrider-agent@*.service")
    )
    if stale and not module.check_mode:
        systemctl(module, "daemon-reload")
    names = [str(change.path) for change in found]
    module.exit_json(
        changed=bool(found) or stale,
        written=[name for name, change in zip(names, found, strict=True) if change.after is not None],
        removed=[name for name, change in zip(names, found, strict=True) if change.after is None],
        reloaded=stale,
        diff=[
            {"before": change.before or "", "after": change.after or "", "before_header": name, "after_header": name}
            for name, change in zip(names, found, strict=True)
        ],
    )


if __name__ == "__main__":
    main()
