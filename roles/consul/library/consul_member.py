#!/usr/bin/python
"""Module consul_member: a node that is gone for good leaves nothing in the Consul cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: consul_member
short_description: Take a node out of the Consul cluster for good
version_added: "0.1.0"
description:
  - Takes away a server's vote, then makes gossip forget the node, then takes it out of the catalog. Each is done only
    if it is needed, and the task ends when the servers have nothing of the node any more.
  - A node that is alive is refused, unless the module runs there with O(leave).
  - A server is refused whose removal would leave less than a quorum of voters that are well.
options:
  node: {description: Name of the node in Consul., type: str, required: true}
  servers: {description: "Addresses of the servers with https.", type: list, elements: str, required: true}
  ca_file: {description: CA of the servers., type: path}
  cert_file: {description: Certificate to show., type: path}
  key_file: {description: Its key., type: path}
  management_token: {description: Token that may change raft and the catalog., type: str, default: ""}
  state: {description: Only V(absent)., type: str, choices: [absent], default: absent}
  leave:
    description: The node is this host. A server first gives up its vote by itself; then the unit is stopped for good.
    type: bool
    default: false
  force: {description: Whether a server is removed although no quorum is left., type: bool, default: false}
  prune:
    description:
      - Whether gossip forgets the node at once, instead of listing it as left for three days. V(false) where another
        host takes its name at once, for Consul may take up to a minute to let in again whom it forgot a moment ago.
    type: bool
    default: true
  service: {description: The unit that O(leave) stops., type: str, default: consul}
  stop_command: {description: What stops it instead of systemd., type: list, elements: str}
  timeout_s: {description: Seconds that gossip may take to see it gone and to forget it., type: float, default: 30}
attributes:
  check_mode: {support: full, description: Says what would be done.}
  diff_mode: {support: full, description: What there is of the node before and after.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: A server that was lost is no voter any more
  consul_member:
    node: gpu-07
    servers: [https://10.0.0.1:8501, https://10.0.0.2:8501]
    ca_file: /etc/consul.d/tls/ca.pem
    cert_file: /etc/consul.d/tls/host.pem
    key_file: /etc/consul.d/tls/host-key.pem
    management_token: "{{ management }}"
"""

RETURN = r"""
steps: {description: What was done., returned: always, type: list, elements: str, sample: [deregister]}
"""

from ansible.module_utils.basic import AnsibleModule

ARGUMENTS = {
    "node": {"type": "str", "required": True},
    "servers": {"type": "list", "elements": "str", "required": True},
    "ca_file": {"type": "path"},
    "cert_file": {"type": "path"},
    "key_file": {"type": "path", "no_log": False},
    "management_token": {"type": "str", "no_log": True, "default": ""},
    "state": {"type": "str", "choices": ["absent"], "default": "absent"},
    "leave": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "prune": {"type": "bool", "default": True},
    "service": {"type": "str", "default": "consul"},
    "stop_command": {"type": "list", "elements": "str"},
    "timeout_s": {"type": "float", "default": 30.0},
}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    # Here, because ansible-lint loads this file, to know the options, without the role's module_utils.
    from ansible.module_utils.consul_http import ConsulError
    from ansible.module_utils.consul_membership import Membership, Refused

    try:
        steps = Membership(module.params, module.run_command).remove(module.check_mode)
    except (ConsulError, Refused) as error:
        module.fail_json(msg=f"{module.params['node']}: {error}")
    diff = {"before": "".join(f"to do: {step}\n" for step in steps), "after": ""}
    module.exit_json(changed=bool(steps), steps=steps, diff=diff)


if __name__ == "__main__":
    main()
