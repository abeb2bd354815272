#!/usr/bin/python
"""Module agent_migration_info: where migrations are, how they were judged, and what may be done next."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_migration_info
short_description: Read migrations and how they went
version_added: "0.1.0"
description:
  - Reads the journals of migrations in Consul. Never changes anything.
options:
  migration: {description: "One, by its id.", type: str}
  agent: {description: Those of one agent., type: str}
  active: {description: Only those that have not ended., type: bool, default: false}
extends_documentation_fragment: [consul_agent]
attributes:
  check_mode: {support: full, description: It only reads.}
  diff_mode: {support: none, description: It changes nothing.}
requirements: [outrider]
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Wait until nothing migrates
  agent_migration_info: {active: true}
  register: under_way
  until: not under_way.migrations
  retries: 60
  delay: 1
"""

RETURN = r"""
migrations:
  description: The migrations, the newest last.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: Of the migration., type: str}
    agent: {description: What moves., type: str}
    strategy: {description: "C(replicated), C(singleton), C(state) or C(cold).", type: str}
    source: {description: "The old C(instance), its C(host) and C(version).", type: dict}
    target: {description: The same of the new one., type: dict}
    state: {description: "Where it is, as C(running), C(held) or C(finalised).", type: str}
    phase: {description: "C(prepare), C(canary), C(cutover), C(verify), C(rollback) or C(held).", type: str}
    reason: {description: Why it went back or is held., type: str}
    verdict: {description: What the judge said last and of which counts., type: dict}
    timings: {description: Seconds of each step by its name., type: dict}
    next: {description: Commands that may follow., type: list}
problems: {description: Journals that cannot be followed., returned: success, type: list, elements: str}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

MISSING = ""
try:
    from msgspec import convert, to_builtins

    from outrider.errors import OutriderError
    from outrider.migration.publication import Target
    from outrider.migration.staged.converge import overview
except ImportError as error:
    MISSING = f"{missing_required_lib('outrider')} ({error})"

ARGUMENTS: dict[str, Any] = {
    "migration": {"type": "str"},
    "agent": {"type": "str"},
    "active": {"type": "bool", "default": False},
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
    params = module.params
    try:
        target = convert(params, Target)
        found = overview(target, agent=params["agent"], migration=params["migration"], active=params["active"])
    except OutriderError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **to_builtins(found))


if __name__ == "__main__":
    main()
