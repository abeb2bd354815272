#!/usr/bin/python
"""Module consul_dns: names under .consul by the host's own resolver, which answers everything else as before."""

from __future__ import annotations

DOCUMENTATION = r"""
module: consul_dns
short_description: Forward names under .consul to the Consul agent, without breaking the host's resolver
version_added: "0.1.0"
description:
  - Makes the host's resolver ask the Consul agent for names under C(.consul), and for no other name.
  - V(resolved) gets a link of its own that carries nothing but the address of Consul's DNS, made by the unit
    C(consul-dns). A global server of systemd-resolved would be asked for every name; while it is frozen, one that does
    not exist takes 130 s to fail. V(dnsmasq) gets a file in C(/etc/dnsmasq.d).
  - Refuses, changing nothing, where that would take effect badly.
  - What resolved before must resolve after, the files that name the host's DNS servers must be the same, and the
    resolver must ask Consul. Otherwise the change is taken back and the module fails with what no longer resolved.
options:
  state: {description: Whether the names are forwarded., type: str, choices: [present, absent], default: present}
  resolver:
    description: The resolver. Required for V(present); V(absent) removes what is there.
    type: str
    choices: [resolved, dnsmasq]
  server: {description: Address of Consul's DNS., type: str, default: 127.0.0.1}
  port: {description: Its port., type: int, default: 8600}
  check_names:
    description: Names that must resolve after as before, besides the host's own and C(localhost).
    type: list
    elements: str
    default: []
  settle_s: {description: Seconds in which all must be well after a change., type: float, default: 5}
attributes:
  check_mode: {support: full, description: Refuses what it would refuse and predicts the file. Consul need not run yet.}
  diff_mode: {support: full, description: The file before and after.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Names under .consul
  consul_dns:
    resolver: resolved
    check_names: [git.example.org]
"""

RETURN = r"""
consul_says:
  description: What Consul's DNS itself said of C(consul.service.consul). NXDOMAIN may mean that ACLs hide it.
  returned: always
  type: str
  sample: NOERROR
"""

from ansible.module_utils.basic import AnsibleModule

ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "resolver": {"type": "str", "choices": ["resolved", "dnsmasq"]},
    "server": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 8600},
    "check_names": {"type": "list", "elements": "str", "default": []},
    "settle_s": {"type": "float", "default": 5.0},
}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, required_if=[("state", "present", ["resolver"])])
    # Here, because ansible-lint loads this file, to know the options, without the role's module_utils.
    from ansible.module_utils.consul_forwarding import Refused
    from ansible.module_utils.file_batch import FileSetError
    from ansible.module_utils.forwarding_change import Change

    change = Change(module.params, module.run_command, module.tmpdir, module.check_mode)
    try:
        present = module.params["state"] == "present"
        result = change.present(module.params["resolver"]) if present else change.absent()
    except (Refused, FileSetError) as error:
        module.fail_json(msg=f"names under .consul are not forwarded by this host's resolver: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
