#!/usr/bin/python
"""Module fleet: check a fleet file on the controller, then publish it to Consul and roll out what changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet
short_description: Check, publish and roll out a fleet of agents
version_added: "0.1.0"
description:
  - With O(state=validated) reads a fleet file, refuses it whole if anything is wrong, and returns it compiled.
  - With O(state=present) writes it to Consul by check-and-set and waits until all that changed is well. Only what has
    another release, configuration or host restarts, one instance of an agent at a time, needs first. The first agent
    that fails gets its earlier documents back, and the run stops there.
  - With O(state=absent) drains and removes every agent that Consul holds.
  - A run that was broken off is finished by running it again; two at once are excluded by a lock in Consul.
options:
  path: {description: "Fleet file, with O(state=validated).", type: path}
  hosts:
    description: "By default the definition's; each C(name), C(address), C(groups), C(labels) and what it has."
    type: list
    elements: dict
  definition: {description: "The compiled fleet, as O(state=validated) returned it.", type: dict}
  releases: {description: "Digest of each code source by its key, of M(agent_release).", type: dict, default: {}}
  prune: {description: Drain and remove agents that the definition no longer has., type: bool, default: true}
  wait_s: {description: "Seconds an instance may take to be well, from its turn on.", type: float, default: 120}
  parallel: {description: Agents whose instances are replaced at the same time., type: int, default: 8}
  state: {description: What shall be., type: str, choices: [validated, present, absent], default: present}
extends_documentation_fragment: [consul_agent]
attributes:
  check_mode: {support: full, description: "Predicts the changes; against nothing, with a warning, without Consul."}
  diff_mode: {support: full, description: Both documents of every agent that changes. Secret-looking values are hidden.}
requirements: [outrider]
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Check the fleet file
  fleet: {path: inventories/reference/fleet.yml, hosts: "{{ hosts }}", state: validated}
  delegate_to: localhost
  register: checked

- name: Publish the fleet and wait until it is well
  fleet: {definition: "{{ checked.definition }}", releases: "{{ packed.digests }}"}
- name: Remove the whole fleet
  fleet: {state: absent}
"""

RETURN = r"""
definition: {description: "The fleet: C(name), C(agents), C(hosts), C(groups).", returned: validated, type: dict}
sources: {description: "Code to pack, each C(key), C(type), C(code), C(base).", returned: validated, type: list}
hosts: {description: "Per host C(agents), C(services), C(local_ports) of needs.", returned: validated, type: dict}
problems: {description: Every problem of the fleet., returned: when refused, type: list, elements: str}
agents: {description: "Counts of C(added), C(changed), C(removed), C(unchanged) agents.", returned: present, type: dict}
restarted: {description: Instances that were started anew., returned: present, type: list, elements: str}
operations: {description: "What was done, or in check mode would be, in order.", returned: present, type: list}
not_done: {description: Agents that a failed run did not reach., returned: on failure, type: list, elements: str}
seconds: {description: How long it took., returned: present, type: float}
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

MISSING = ""
try:
    from msgspec import convert, to_builtins

    from outrider.errors import OutriderError
    from outrider.migration.publication import Order, Target, details, predict, publish, validate
except ImportError as error:
    MISSING = f"{missing_required_lib('outrider')} ({error})"

ARGUMENTS: dict[str, Any] = {
    "path": {"type": "path"},
    "hosts": {"type": "list", "elements": "dict"},
    "definition": {"type": "dict"},
    "releases": {"type": "dict", "default": {}},
    "prune": {"type": "bool", "default": True},
    "wait_s": {"type": "float", "default": 120.0},
    "parallel": {"type": "int", "default": 8},
    "consul_host": {"type": "str", "default": "127.0.0.1"},
    "consul_port": {"type": "int", "default": 8500},
    "consul_scheme": {"type": "str", "choices": ["http", "https"], "default": "http"},
    "consul_token": {"type": "str", "no_log": True},
    "consul_token_file": {"type": "path", "no_log": False},
    "consul_ca_file": {"type": "path"},
    "state": {"type": "str", "choices": ["validated", "present", "absent"], "default": "present"},
}
REQUIRED = [("state", "validated", ("path", "hosts")), ("state", "present", ("definition",))]


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises OutriderError."""
    if params["state"] == "validated":
        return to_builtins(validate(Path(params["path"]), params["hosts"]))
    return to_builtins((predict if check_mode else publish)(convert(params, Target), convert(params, Order)))


def main() -> None:
    # Not logged: a definition is large, and its environment is nobody's business in the system's journal.
    module = AnsibleModule(ARGUMENTS, required_if=REQUIRED, supports_check_mode=True, no_log=True)
    if MISSING:
        module.fail_json(msg=f"{MISSING}; set ansible_python_interpreter to the venv that Outrider is installed in")
    try:
        result = run(module.params, module.check_mode)
    except OutriderError as error:
        module.fail_json(msg=str(error), **details(error))
    for warning in result.pop("warnings", ()):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
