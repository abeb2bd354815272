#!/usr/bin/python
"""Module host_secrets: certificates, keys and tokens of the fleet, made once, in one folder of the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_secrets
short_description: Make what secrets the hosts lack, on the controller
version_added: "0.1.0"
description:
  - Makes the fleet's own CA (C(ca.pem), C(ca-key.pem)), for each host a certificate for Consul (C(consul/HOST.pem)) and
    one for the shim (C(shim/HOST.pem)) with their keys (C(HOST-key.pem)), C(gossip.key), C(peers.key), and in
    C(tokens.json) one token for management and one for each host. All is made before it is used, so a run that was
    broken off loses nothing.
  - What is there is kept. A certificate is made anew when it ends soon, when names or addresses of its host changed, or
    when the CA did. The folder has mode 0700 and its files 0600. Runs at the same time wait for each other.
  - Hosts that are not listed keep what they have; O(forget) removes it.
options:
  folder: {description: Where the secrets lie., type: path, required: true}
  datacenter: {description: Name of Consul's datacenter., type: str, default: dc1}
  hosts:
    description: The hosts.
    type: list
    elements: dict
    default: []
    options:
      name: {description: Its name in the inventory., type: str, required: true}
      addresses: {description: Addresses and further names it is reached by., type: list, elements: str, default: []}
      server: {description: Whether it runs a Consul server., type: bool, default: false}
  renew_days: {description: A certificate that ends within so many days is made anew., type: int, default: 60}
  forget: {description: Names of hosts whose secrets are removed., type: list, elements: str, default: []}
requirements: [cryptography >= 42]
attributes:
  check_mode: {support: full, description: Says what would be made and makes nothing.}
  diff_mode: {support: full, description: What is made or removed and why; never a content.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Secrets of every host
  host_secrets:
    folder: "{{ fleet_secrets_folder }}"
    hosts:
      - {name: alpha, addresses: [10.1.2.3], server: true}
      - {name: beta, addresses: [10.1.2.4, beta.example.org]}
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
made:
  description: Names of what was made, or would be.
  returned: always
  type: list
  elements: str
  sample: [ca.pem, consul/alpha.pem, "tokens.json: alpha"]
removed: {description: "Names of what was removed, or would be.", returned: always, type: list, elements: str}
tightened: {description: "Paths others could use, and no longer can.", returned: always, type: list, elements: str}
"""

import datetime
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

HOST = {
    "name": {"type": "str", "required": True},
    "addresses": {"type": "list", "elements": "str", "default": []},
    "server": {"type": "bool", "default": False},
}
OPTIONS: dict[str, Any] = {
    "folder": {"type": "path", "required": True},
    "datacenter": {"type": "str", "default": "dc1"},
    "hosts": {"type": "list", "elements": "dict", "default": [], "options": HOST},
    "renew_days": {"type": "int", "default": 60},
    "forget": {"type": "list", "elements": "str", "default": []},
}


def mistake(params: dict[str, Any]) -> str:
    """What contradicts itself in the arguments, empty if nothing does."""
    names = [host["name"] for host in params["hosts"]]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        return f"{twice[0]} is listed twice"
    if both := sorted(set(names) & set(params["forget"])):
        return f"{both[0]} is to be forgotten, and is a host"
    return (
        "" if re.fullmatch("[a-z0-9_-]+", params["datacenter"]) else "datacenter: small letters, digits, - and _ only"
    )


def main() -> None:
    module = AnsibleModule(OPTIONS, supports_check_mode=True)
    # Here, because ansible-lint loads this file, to know the options, without the role's module_utils.
    try:
        from ansible.module_utils.host_certificates import Host, SecretsError
        from ansible.module_utils.secrets_folder import run
    except ImportError as error:
        module.fail_json(msg=f"{missing_required_lib('cryptography')} ({error})")
    params = module.params
    if wrong := mistake(params):
        module.fail_json(msg=f"{wrong}. Nothing was changed.")
    hosts = [Host(host["name"], tuple(host["addresses"]), host["server"]) for host in params["hosts"]]
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    order = (Path(params["folder"]), params["datacenter"], params["renew_days"], now)
    try:
        steps = run(order, hosts, params["forget"], module.check_mode)
    except SecretsError as error:
        module.fail_json(msg=f"{error}. Nothing was changed.")
    except OSError as error:
        module.fail_json(msg=f"{error}. Run it again; what was made is kept.")
    lines = [f"{step.name}: {step.why}\n" for part in steps.values() for step in part]
    diff = {"before": "", "after": "".join(lines), "before_header": params["folder"], "after_header": params["folder"]}
    names = {kind: [step.name for step in part] for kind, part in steps.items()}
    module.exit_json(changed=bool(lines), diff=diff, **names)


if __name__ == "__main__":
    main()
