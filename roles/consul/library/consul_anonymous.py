#!/usr/bin/python
"""Module consul_anonymous: one policy among those of the anonymous token, whose other policies stay."""

from __future__ import annotations

DOCUMENTATION = r"""
module: consul_anonymous
short_description: Let callers without a token do what one policy allows
version_added: "0.1.0"
description:
  - Keeps a policy in Consul and links it to the anonymous token. Other policies of that token are left alone.
  - V(absent) takes both away.
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
      rules: {description: What it allows in HCL or JSON., type: str, required: true}
      description: {description: What it is for., type: str, default: ""}
  state: {description: Whether it shall be there., type: str, choices: [present, absent], default: present}
  wait_s: {description: Seconds to wait for a leader., type: float, default: 30}
attributes:
  check_mode: {support: full, description: Only reads. Where no server answers yet a change is predicted.}
  diff_mode: {support: full, description: The policy's rules before and after.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: DNS may answer
  consul_anonymous:
    servers: [https://10.0.0.1:8501]
    ca_file: /etc/consul.d/tls/ca.pem
    cert_file: /etc/consul.d/tls/host.pem
    key_file: /etc/consul.d/tls/host-key.pem
    management_token: "{{ tokens.management.secret }}"
    policy:
      name: dns
      rules: |
        node_prefix "" { policy = "read" }
        service_prefix "" { policy = "read" }
"""

RETURN = r"""
steps: {description: What is written., returned: always, type: list, elements: str, sample: [link policy]}
"""

from ansible.module_utils.basic import AnsibleModule

STRING = {"type": "str", "required": True}
ARGUMENTS = {
    "servers": {"type": "list", "elements": "str", "required": True},
    "ca_file": {"type": "path"},
    "cert_file": {"type": "path"},
    "key_file": {"type": "path", "no_log": False},
    "management_token": {"type": "str", "required": True, "no_log": True},
    "policy": {
        "type": "dict",
        "required": True,
        "options": {"name": STRING, "rules": STRING, "description": {"type": "str", "default": ""}},
    },
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "wait_s": {"type": "float", "default": 30.0},
}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    # Here, because ansible-lint loads this file, to know the options, without the role's module_utils.
    from ansible.module_utils.consul_anonymous_policy import run
    from ansible.module_utils.consul_http import ConsulError

    try:
        module.exit_json(**run(module.params, module.check_mode))
    except ConsulError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
