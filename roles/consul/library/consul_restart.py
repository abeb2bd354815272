#!/usr/bin/python
"""Module consul_restart: a Consul agent that runs with what is there, restarted only while the others can spare it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: consul_restart
short_description: Restart this host's Consul agent, safely, if that is pending
version_added: "0.1.0"
description:
  - Starts the agent if it does not run. Restarts it if its files are not those that it was started with.
  - A restart is one unit. The lock of all restarts is taken; every server must vote and be well, as another server
    sees it; the agent is restarted; and it is back only once another server counts it among the voters, finds it well,
    and it has applied what was committed meanwhile.
  - If it does not come back, the files that it last came up with are put in place again, it is restarted with them,
    and the module fails. Hosts that follow in the same run are then not restarted.
options:
  servers: {description: Addresses of all servers with https., type: list, elements: str, required: true}
  own: {description: "This host's own agent, asked without a token.", type: str, default: "http://127.0.0.1:8500"}
  own_server: {description: "This host's entry in O(servers), if it has one.", type: str, default: ""}
  node: {description: Name of this host in Consul., type: str, required: true}
  management_token: {description: Token that may see raft and take the lock., type: str, default: ""}
  ca_file: {description: CA of the servers., type: path}
  cert_file: {description: Certificate to show., type: path}
  key_file: {description: Its key., type: path}
  service: {description: The unit., type: str, default: consul}
  applied_file: {description: "What the unit wrote as it started, see M(applied_service).", type: path, required: true}
  inputs: {description: Files that the agent stands on., type: list, elements: path, required: true}
  good_folder: {description: Where known good copies of them are kept., type: path, default: /var/backups/consul}
  leader: {description: What is done if this server leads., type: str, choices: [skip, restart], default: restart}
  operator: {description: "Who runs this, and which run it is, for others who wait.", type: str, default: unknown}
  timeout_s: {description: Seconds to be back in., type: float, default: 60}
  force: {description: Neither lock nor gate. For servers that lost their quorum., type: bool, default: false}
  restart_command: {description: "What restarts the agent, instead of systemd.", type: list, elements: str}
  lock_wait_s: {description: Seconds to wait for another run., type: float, default: 120}
attributes:
  check_mode: {support: full, description: Says whether it would be started or restarted.}
  diff_mode: {support: full, description: The state before and after.}
author: [The Outrider authors]
"""

EXAMPLES = r"""
- name: Followers first
  consul_restart:
    servers: [https://10.1.2.3:8501, https://10.1.2.4:8501, https://10.1.2.5:8501]
    own_server: https://10.1.2.3:8501
    node: alpha
    management_token: "{{ management }}"
    applied_file: /run/consul/applied
    inputs: [/usr/local/bin/consul, /etc/consul.d/consul.json]
    leader: skip
  throttle: 1
"""

RETURN = r"""
action:
  description: C(start), C(restart), C(none), C(skip), left for later, or C(confirm) after a run that was cut off.
  returned: always
  type: str
skipped_leader: {description: Whether it was left because it leads., returned: always, type: bool}
notes: {description: "What a restart cost, or waits for.", returned: always, type: list, elements: str}
seconds: {description: How long it took., returned: always, type: float}
"""

import time

from ansible.module_utils.basic import AnsibleModule

ARGUMENTS = {
    "servers": {"type": "list", "elements": "str", "required": True},
    "own": {"type": "str", "default": "http://127.0.0.1:8500"},
    "own_server": {"type": "str", "default": ""},
    "node": {"type": "str", "required": True},
    "management_token": {"type": "str", "no_log": True, "default": ""},
    "ca_file": {"type": "path"},
    "cert_file": {"type": "path"},
    "key_file": {"type": "path", "no_log": False},
    "service": {"type": "str", "default": "consul"},
    "applied_file": {"type": "path", "required": True},
    "inputs": {"type": "list", "elements": "path", "required": True},
    "good_folder": {"type": "path", "default": "/var/backups/consul"},
    "leader": {"type": "str", "choices": ["skip", "restart"], "default": "restart"},
    "operator": {"type": "str", "default": "unknown"},
    "force": {"type": "bool", "default": False},
    "restart_command": {"type": "list", "elements": "str"},
    "timeout_s": {"type": "float", "default": 60},
    "lock_wait_s": {"type": "float", "default": 120},
}


def main() -> None:
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    # Here, because ansible-lint loads this file, to know the options, without the role's module_utils.
    from ansible.module_utils.consul_http import ConsulError
    from ansible.module_utils.rolling_restart import Failed, Restart

    began = time.monotonic()
    try:
        restart = Restart(module.params, module.run_command)
        before = restart.state
        action = restart.pending() if module.check_mode else restart.run()
    except (ConsulError, Failed) as error:
        module.fail_json(msg=f"{module.params['node']}: {error}")
    changed = action not in ("none", "skip")
    result = {"changed": changed, "action": action, "skipped_leader": action == "skip", "notes": restart.notes}
    result["diff"] = {"before": f"{before}\n", "after": f"active, {action} done\n" if changed else f"{before}\n"}
    module.exit_json(seconds=round(time.monotonic() - began, 1), **result)


if __name__ == "__main__":
    main()
