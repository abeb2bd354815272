#!/usr/bin/python
"""Module consul_token: one policy and one token in Consul, known to every server before anybody uses the token."""

from __future__ import annotations

DOCUMENTATION = r"""
module: consul_token
short_description: Keep a policy and a token that was made before in Consul
version_added: "0.1.0"
description:
  - Makes sure that a policy, and a token linked to it and to nothing else, are in Consul with the accessor and the
    secret given. What differs is corrected; that another host does the same at the same time does no harm.
  - The task ends when every server that answers has both in its own store. A token that is used before makes the
    agent that asks for it refuse it for 30 s.
  - Waits until the ACL system is bootstrapped and not in legacy mode.
options:
  servers:
    description: Addresses such as C(https://HOST:8501), asked in turn.
    type: list
    elements: str
    required: true
  ca_file: {description: Certificate of the CA that the servers must have theirs from., type: path}
  cert_file: {description: Certificate to show to the servers., type: path}
  key_file: {description: Its key., type: path}
  management_token: {description: A token that may change ACLs., type: str, required: true}
  policy:
    description: The policy, found by its name.
    type: dict
    required: true
    options:
      name: {description: Its name., type: str, required: true}
      rules: {description: What it allows in HCL or JSON., type: str, default: ""}
      description: {description: What it is for., type: str, default: ""}
  token:
    description: The token, found by its accessor.
    type: dict
    required: true
    options:
      accessor: {description: The UUID that names it., type: str, required: true}
      secret: {description: The UUID that proves it. Needed for V(present)., type: str}
      description: {description: What it is for., type: str, default: ""}
  state: {description: Whether both shall be there., type: str, choices: [present, absent], default: present}
  read_back:
    description:
      - Servers that must have the token in their own store, all of O(servers) unless given. One that does not answer
        is passed over, and named, if a majority has it.
    type: list
    elements: str
  wait_s: {description: Seconds that all of it may take., type: float, default: 30}
attributes:
  check_mode: {support: full, description: Only reads. Where no server answers yet both are predicted to be made.}
  diff_mode: {support: full, description: The policy's rules before and after.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: This host's token, with no more than the host needs
  consul_token:
    servers: [https://10.0.0.1:8501, https://10.0.0.2:8501, https://10.0.0.3:8501]
    ca_file: /etc/consul.d/tls/ca.pem
    cert_file: /etc/consul.d/tls/host.pem
    key_file: /etc/consul.d/tls/host-key.pem
    management_token: "{{ tokens.management.secret }}"
    policy: {name: host-gpu-07, rules: 'node "gpu-07" { policy = "write" }'}
    token: "{{ tokens.hosts['gpu-07'] }}"
"""

RETURN = r"""
steps: {description: What was written., returned: always, type: list, elements: str, sample: [update policy]}
not_reached: {description: Servers that did not answer., returned: always, type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule

STRING = {"type": "str", "default": ""}
ARGUMENTS = {
    "servers": {"type": "list", "elements": "str", "required": True},
    "ca_file": {"type": "path"},
    "cert_file": {"type": "path"},
    "key_file": {"type": "path", "no_log": False},
    "management_token": {"type": "str", "required": True, "no_log": True},
    "policy": {"type": "dict", "required": True},
    # Only the secret of it is one.
    "token": {"type": "dict", "required": True, "no_log": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "read_back": {"type": "list", "elements": "str"},
    "wait_s": {"type": "float", "default": 30.0},
}
ARGUMENTS["policy"]["options"] = {"name": {"type": "str", "required": True}, "rules": STRING, "description": STRING}
ARGUMENTS["token"]["options"] = {"accessor": {"type": "str", "required": True}, "description": STRING}
ARGUMENTS["token"]["options"]["secret"] = {"type": "str", "no_log": True}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    # Here, because ansible-lint loads this file, to know the options, without the role's module_utils.
    from ansible.module_utils.consul_acl import run
    from ansible.module_utils.consul_http import ConsulError

    try:
        result = run(module.params, module.check_mode)
    except ConsulError as error:
        module.fail_json(msg=str(error), http_status=error.status)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
