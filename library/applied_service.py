#!/usr/bin/python
"""Module applied_service: a systemd service that runs with what is there now, made to only if it does not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: applied_service
short_description: Keep a service running with its present files
version_added: "0.1.0"
description:
  - The unit writes, as it starts, the output of C(sha256sum INPUTS | sha256sum; echo $INVOCATION_ID) to
    O(applied_file). The service is restarted when the sum differs from what the inputs are now, or was written for
    another start; it is started when it does not run, and otherwise left alone.
  - With O(reload_inputs) the unit also writes the same of these to O(reloaded_file), as it starts and as it is
    reloaded. It is reloaded when that alone differs.
  - That a restart is pending is derived, not remembered, so a run that was broken off is made good by the next.
options:
  service: {description: Name of the unit., type: str, required: true}
  applied_file: {description: What the unit wrote as it started., type: path, required: true}
  inputs:
    description: Files that the service stands on, in the order of the unit's command.
    type: list
    elements: path
    required: true
  reload_inputs:
    description: Files that a reload is enough for, in the order of the unit's commands.
    type: list
    elements: path
  reloaded_file: {description: What the unit wrote as it started or was last reloaded., type: path}
attributes:
  check_mode: {support: full, description: Says whether it would be started, restarted or reloaded.}
  diff_mode: {support: full, description: The state before and after.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: The shim runs, with what is there
  applied_service:
    service: outriderd
    applied_file: /run/outrider/applied
    inputs: [/etc/outrider/outriderd.toml, /etc/systemd/system/outriderd.service]
"""

RETURN = r"""
action: {description: "C(start), C(restart), C(reload) or C(none).", returned: always, type: str, sample: restart}
"""

from ansible.module_utils.basic import AnsibleModule

ARGUMENTS = {
    "service": {"type": "str", "required": True},
    "applied_file": {"type": "path", "required": True},
    "inputs": {"type": "list", "elements": "path", "required": True},
    "reload_inputs": {"type": "list", "elements": "path"},
    "reloaded_file": {"type": "path"},
}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, required_together=[("reload_inputs", "reloaded_file")])
    # Here, because ansible-lint loads this file, to know the options, without the role's module_utils.
    from ansible.module_utils.applied import is_applied

    service = module.params["service"]
    reload_inputs, reloaded_file = module.params["reload_inputs"], module.params["reloaded_file"]

    def systemctl(*words: str, check: bool = True) -> str:
        status, output, errors = module.run_command(["systemctl", *words])
        if status and check:
            hint = f"journalctl -u {service} -n 50"
            module.fail_json(msg=f"systemctl {' '.join(words)}: {errors.strip() or status}; see: {hint}")
        return output.strip()

    state = systemctl("is-active", service, check=False) or "unknown"
    if state not in ("active", "activating", "reloading"):
        action = "start"
    else:
        invocation = systemctl("show", "--property=InvocationID", "--value", service)
        if not is_applied(module.params["applied_file"], module.params["inputs"], invocation):
            action = "restart"
        elif reload_inputs and not is_applied(reloaded_file, reload_inputs, invocation):
            action = "reload"
        else:
            action = "none"
    if not module.check_mode:
        # A drop-in that is new for a unit not yet loaded is not among what systemd says it must reload for.
        if action != "none" or systemctl("show", "--property=NeedDaemonReload", "--value", service) != "no":
            systemctl("daemon-reload")
        if systemctl("is-enabled", service, check=False) != "enabled":
            systemctl("enable", service)
        if action != "none":
            systemctl(action, service)
    after = {"start": "active\n", "none": f"{state}\n"}.get(action, f"active, {action}ed\n")
    module.exit_json(changed=action != "none", action=action, diff={"before": f"{state}\n", "after": after})


if __name__ == "__main__":
    main()
