#!/usr/bin/python
"""Module fleet_info: what is published in Consul, where it is placed, and whether it is well."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_info
short_description: Read a published fleet and its health
version_added: "0.1.0"
description:
  - Reads the documents of every agent, or of some, and what Consul says of their instances. Never changes anything.
requirements: [outrider]
options:
  agents: {description: "Agents to return, by default all.", type: list, elements: str}
extends_documentation_fragment: [consul_agent]
attributes:
  check_mode: {support: full, description: It only reads.}
  diff_mode: {support: none, description: It changes nothing.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Read the fleet
  fleet_info:
  register: published

- name: Wait until two agents are well
  fleet_info: {agents: [MemoryHub, ServiceRegistry]}
  register: published
  until: published.healthy
  retries: 30
  delay: 1
"""

RETURN = r"""
fleets: {description: "Names of the fleets that the agents belong to, one as a rule.", returned: success, type: list}
healthy: {description: True if every instance that should run passes., returned: success, type: bool}
agents:
  description: The published agents by name.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: The agent., type: str}
    fleet: {description: Its fleet., type: str}
    version: {description: Code and configuration that it should run., type: str}
    release: {description: Digest of its code., type: str}
    mode: {description: Replicated or singleton., type: str}
    passing: {description: How many of its instances pass., type: int}
    instances:
      description: Each with C(instance), C(host), C(state), C(version), C(status), C(output).
      type: list
      elements: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

MISSING = ""
try:
    from msgspec import convert, to_builtins

    from outrider.errors import OutriderError
    from outrider.migration.overview import overview
    from outrider.migration.publication import Target
except ImportError as error:
    MISSING = f"{missing_required_lib('outrider')} ({error})"

ARGUMENTS: dict[str, Any] = {
    "agents": {"type": "list", "elements": "str"},
    "consul_host": {"type": "str", "default": "127.0.0.1"},
    "consul_port": {"type": "int", "default": 8500},
    "consul_scheme": {"type": "str", "choices": ["http", "https"], "default": "http"},
    "consul_token": {"type": "str", "no_log": True},
    "consul_token_file": {"type": "path", "no_log": False},
    "consul_ca_file": {"type": "path"},
}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    if MISSING:
        module.fail_json(msg=f"{MISSING}; set ansible_python_interpreter to the venv that Outrider is installed in")
    try:
        found = overview(convert(module.params, Target), module.params["agents"])
    except OutriderError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **to_builtins(found))


if __name__ == "__main__":
    main()
