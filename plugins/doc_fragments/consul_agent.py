"""How a module reaches Consul: options that several share."""

from __future__ import annotations


class ModuleDocFragment:
    """As Ansible looks for it."""

    DOCUMENTATION = r"""
options:
  consul_host: {description: Where a Consul agent answers., type: str, default: 127.0.0.1}
  consul_port: {description: Its HTTP port., type: int, default: 8500}
  consul_scheme: {description: How it is spoken to., type: str, choices: [http, https], default: http}
  consul_token: {description: The ACL token., type: str}
  consul_token_file: {description: "Or a file that holds it.", type: path}
  consul_ca_file: {description: CA certificate for https., type: path}
"""
