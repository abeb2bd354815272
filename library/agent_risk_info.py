#!/usr/bin/python
"""Module agent_risk_info: how risky it is to move an agent, from measured facts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_risk_info
short_description: Measure how risky it is to move agents
version_added: "0.1.0"
description:
  - Adds up points from measured facts, and tells strategy and gates that follow. Never changes anything.
  - What cannot be measured takes the worst value, and says so. C(docs/risk.md) explains every factor.
requirements: [outrider]
options:
  agent: {description: "The agent, by default each.", type: str, default: ""}
  to: {description: "Host that it goes to, by default where placement would put it.", type: str, default: ""}
  source: {description: "Folder of its code on this host, by default the installed release.", type: path}
  new: {description: Folder of the code that shall replace it., type: path}
  readable: {description: Whether the old code can read the files that the new one writes., type: bool}
  releases_dir: {description: Folder of the installed releases., type: path, default: /opt/outrider/releases}
  runtime_dir: {description: "Runtime folder of the host's shim, which is asked for calls and events.", type: path,
                default: /run/outrider}
  prometheus: {description: "Address of Prometheus, to ask for the calls of all hosts.", type: str, default: ""}
extends_documentation_fragment: [consul_agent]
attributes:
  check_mode: {support: full, description: It only reads.}
  diff_mode: {support: none, description: It changes nothing.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Measure the risk of a move
  agent_risk_info: {agent: MemoryHub, to: pc2}
  register: measured

- name: Stop where two people would have to agree
  agent_risk_info: {agent: MemoryHub, new: /srv/next/memory, readable: true}
  register: measured
  failed_when: measured.risks[0].band.approvals > 1 or measured.risks[0].band.strategy == 'refused'
"""

RETURN = r"""
risks:
  description: One for each agent that was asked about, the riskiest first.
  returned: success
  type: list
  elements: dict
  contains:
    agent: {description: The agent., type: str}
    source: {description: Host that it is on., type: str}
    target: {description: Host that it would go to., type: str}
    points: {description: "All of them: C(likelihood), C(impact), and C(extra) above these 35.", type: int}
    unknown: {description: Points that are there for want of a fact., type: int}
    band: {description: "With C(name), C(strategy), C(backup), C(approvals), C(verify_s), C(rehearsal).", type: dict}
    contributions:
      description: "Each with C(key), C(name), C(points), C(most), C(said), C(evidence), C(measured)."
      type: list
      elements: dict
    gates: {description: "Each with C(name), C(wanted), C(met), C(evidence).", type: list, elements: dict}
    floor: {description: Why the band is higher than its points., type: str}
    stop: {description: Why it may not be moved at all., type: str}
    probability: {description: "Of failure, in words.", type: str}
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

MISSING = ""
try:
    from msgspec import convert, to_builtins

    from outrider.errors import OutriderError
    from outrider.host.shim_client import ShimClient
    from outrider.migration.publication import Target
    from outrider.migration.risk.survey import Asked, of_running
    from outrider.registry.client import connect
except ImportError as error:
    MISSING = f"{missing_required_lib('outrider')} ({error})"

TEXT, PATH = {"type": "str", "default": ""}, {"type": "path"}
ARGUMENTS: dict[str, Any] = {
    **dict.fromkeys(("agent", "to", "prometheus"), TEXT),
    **dict.fromkeys(("source", "new", "consul_ca_file"), PATH),
    "readable": {"type": "bool"},
    "releases_dir": {"type": "path", "default": "/opt/outrider/releases"},
    "runtime_dir": {"type": "path", "default": "/run/outrider"},
    "consul_host": {"type": "str", "default": "127.0.0.1"},
    "consul_port": {"type": "int", "default": 8500},
    "consul_scheme": {"type": "str", "choices": ["http", "https"], "default": "http"},
    "consul_token": {"type": "str", "no_log": True},
    "consul_token_file": {"type": "path", "no_log": False},
}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    if MISSING:
        module.fail_json(msg=f"{MISSING}; set ansible_python_interpreter to the venv that Outrider is installed in")
    given = module.params
    try:
        source, new = (Path(given[key]) if given[key] else None for key in ("source", "new"))
        asked = Asked(given["agent"], given["to"], source, new, given["readable"])
        consul, shim = connect(convert(given, Target).address()), ShimClient(Path(given["runtime_dir"]))
        found = of_running(consul, shim, asked, releases=Path(given["releases_dir"]), prometheus=given["prometheus"])
    except OutriderError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, risks=to_builtins(found))


if __name__ == "__main__":
    main()
