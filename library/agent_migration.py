#!/usr/bin/python
"""Module agent_migration: agents on another host or at another version, step by step, judged, and back by itself."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_migration
short_description: Move agents to another host or version, judged, and back by itself
version_added: "0.1.0"
description:
  - Asks for what is lacking, attaches to what is under way, and follows it. Shims carry it out, also if this run ends.
  - Needs go first, in waves. A version needs its release on the hosts first, as C(playbooks/migrate.yml) brings it.
options:
  agents: {description: "By default all that O(tier), O(host) or O(definition) select.", type: list, elements: str}
  tier: {description: Those of this tier., type: str}
  host: {description: What runs on this host; it goes to O(to)., type: str}
  migration: {description: "Instead of all that, one migration by its id.", type: str}
  to: {description: "The host; by default each agent stays where it is, and only its version changes.", type: str}
  instance: {description: "Which, of an agent with several.", type: str}
  definition: {description: "The compiled fleet of M(fleet); what is at another version migrates.", type: dict}
  releases: {description: "Digest of each code source by its key, of M(agent_release).", type: dict, default: {}}
  canary: {description: "Share of the calls that a new replica gets at first; 0: none.", type: float}
  canary_s: {description: Seconds at most that this is judged., type: float}
  verify_s: {description: Seconds at most after the cutover., type: float}
  undecided: {description: What follows without a verdict by then., type: str, choices: [hold, rollback, accept]}
  approvals: {description: People who must agree before the cutover., type: int}
  readable: {description: "Whether the old version can read the files that the new one writes.", type: bool}
  releases_dir: {description: "Installed code, for the risk.", type: path, default: /opt/outrider/releases}
  override: {description: "Why it is done though a gate of its risk is not met.", type: str, default: ""}
  why: {description: "For others to read, in the journal.", type: str, default: "", aliases: [said]}
  resolve: {description: "Of O(migration) that is held, instead of O(state).", type: str, choices: [keep, back]}
  accept_loss: {description: "Back without what a new host accepted that is lost for good; wants O(said).", type: bool}
  wait_s: {description: Seconds that this run follows., type: float, default: 600}
  state:
    description:
      - V(planned) - only shown; V(rehearsed) - tried up to the cutover, within a day.
      - V(staged) - the new instance is well, the cutover waits for an approval.
      - V(cutover) - approved, and done; V(verified), V(finalised) - judged well, and the old instance gone.
      - V(rolled_back), V(absent) - what is under way went back; with V(rolled_back) it is an error that nothing could.
    type: str
    choices: [planned, rehearsed, staged, cutover, verified, finalised, rolled_back, absent]
    default: finalised
extends_documentation_fragment: [consul_agent]
attributes:
  check_mode: {support: full, description: "Shows steps, waves, gates and room."}
  diff_mode: {support: full, description: Host and version of every instance that is replaced.}
requirements: [outrider]
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Move an agent
  agent_migration: {agents: [Memory], to: gpu2, why: a new disk}
- name: Warm up what changed; the cutover waits
  agent_migration: {definition: "{{ checked.definition }}", releases: "{{ packed.digests }}", state: staged}
- name: Cut over, and back by itself if it is worse
  agent_migration: {agents: [Memory], state: cutover}
- {name: Give a burnt host up, agent_migration: {migration: ID, resolve: back, accept_loss: true, said: it burnt}}
"""

RETURN = r"""
migrations: {description: "How each stands, as of M(agent_migration_info).", returned: always, type: list}
plans: {description: "What was lacking: C(steps) with limits and approvals, C(room).", returned: always, type: list}
waves: {description: "Agents, in the order in which they move.", returned: always, type: list}
progress: {description: What happened while it was followed., returned: always, type: list, elements: str}
problems: {description: Every reason why it cannot be done., returned: when refused, type: list, elements: str}
seconds: {description: How long it took., returned: always, type: float}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

MISSING = ""
try:
    from msgspec import convert, to_builtins

    from outrider.errors import OutriderError
    from outrider.migration.publication import Target
    from outrider.migration.staged.converge import converge, details
    from outrider.migration.staged.wanted import Order
except ImportError as error:
    MISSING = f"{missing_required_lib('outrider')} ({error})"

STATES = ["planned", "rehearsed", "staged", "cutover", "verified", "finalised", "rolled_back", "absent"]
ARGUMENTS: dict[str, Any] = {
    "agents": {"type": "list", "elements": "str"},
    **{name: {"type": "str"} for name in ("tier", "host", "migration", "to", "instance")},
    **{name: {"type": "float"} for name in ("canary", "canary_s", "verify_s")},
    "definition": {"type": "dict"},
    "releases": {"type": "dict", "default": {}},
    "undecided": {"type": "str", "choices": ["hold", "rollback", "accept"]},
    "approvals": {"type": "int"},
    "resolve": {"type": "str", "choices": ["keep", "back"]},
    **{name: {"type": "bool"} for name in ("readable", "accept_loss")},
    "releases_dir": {"type": "path", "default": "/opt/outrider/releases"},
    "override": {"type": "str", "default": ""},
    "why": {"type": "str", "default": "", "aliases": ["said"]},
    "wait_s": {"type": "float", "default": 600.0},
    "consul_host": {"type": "str", "default": "127.0.0.1"},
    "consul_port": {"type": "int", "default": 8500},
    "consul_scheme": {"type": "str", "choices": ["http", "https"], "default": "http"},
    "consul_token": {"type": "str", "no_log": True},
    **{name: {"type": "path", "no_log": False} for name in ("consul_token_file", "consul_ca_file")},
    "state": {"type": "str", "choices": STATES, "default": "finalised"},
}


def main() -> None:
    # Not logged as a whole: a definition's environment is nobody's business in the journal. Progress is.
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, no_log=True)
    if MISSING:
        module.fail_json(msg=f"{MISSING}; set ansible_python_interpreter to the venv that Outrider is installed in")
    try:
        target, order = convert(module.params, Target), convert(module.params, Order)
        found = to_builtins(converge(target, order, module.log, dry=module.check_mode))
    except OutriderError as error:
        module.fail_json(msg=str(error), **details(error))
    if problem := found.pop("problem"):
        module.fail_json(msg=problem, **found)
    module.exit_json(**found)


if __name__ == "__main__":
    main()
