"""Whether the servers of a cluster have a policy and a token in their own stores."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.consul_http import PAUSE_S, Consul, ConsulError, Servers

# What Consul says of a token that it does not know, with status 403 (1.8) or 404 (later).
NOT_FOUND = "ACL not found"
# How long a server that does not answer is asked, once the others have the token: it may be starting.
GRACE_S = 2.0


@dataclass(frozen=True)
class Wanted:
    """The policy, and the token that is linked to it and to nothing else."""

    policy: str
    rules: str
    policy_description: str
    accessor: str
    secret: str
    description: str


def is_linked(token: dict[str, Any], wanted: Wanted) -> bool:
    """Whether the token has the rights of the policy, and no others."""
    others = any(token.get(key) for key in ("Roles", "ServiceIdentities", "NodeIdentities", "TemplatedPolicies"))
    return [link["Name"] for link in token.get("Policies") or []] == [wanted.policy] and not others


def read_token(server: Consul | Servers, accessor: str, **query: str) -> dict[str, Any] | None:
    """None if there is none. Asked with the management token, so that nobody remembers `not found` of the token."""
    try:
        found: dict[str, Any] | None = server.get(f"acl/token/{accessor}", **query)
    except ConsulError as error:
        if NOT_FOUND in str(error):
            return None
        raise
    return found


def wait_for_all(servers: list[Consul], wanted: Wanted, deadline: float) -> list[str]:
    """Until every server that answers has the token and the policy in its own store. Returns those that do not answer.

    A server that is asked for a token that it does not know yet makes the asking agent refuse it for 30 s. Raises
    ConsulError if one answers without it until `deadline`, or if no majority has it.
    """
    lacking, grace, errors = list(servers), time.monotonic() + GRACE_S, {}
    while lacking:
        errors = {server.url: _why_not(server, wanted) for server in lacking}
        lacking = [server for server in lacking if errors[server.url]]
        silent = [server for server in lacking if not errors[server.url].status]  # type: ignore[union-attr]
        majority = len(servers) - len(lacking) > len(servers) // 2
        if majority and silent == lacking and time.monotonic() >= min(grace, deadline):
            break
        if lacking and time.monotonic() >= deadline:
            raise ConsulError("the token did not reach every server: " + "; ".join(str(errors[s.url]) for s in lacking))
        time.sleep(PAUSE_S if lacking else 0)
    return [server.url for server in lacking]


def _why_not(server: Consul, wanted: Wanted) -> ConsulError | None:
    """None if this server has both in its own store."""
    try:
        token = read_token(server, wanted.accessor, stale="")
        if not token or not is_linked(token, wanted):
            return ConsulError(f"{server.url} does not have the token as it shall be", 404)
        policy = server.get(f"acl/policy/{token['Policies'][0]['ID']}", stale="") or {"Rules": ""}
        if policy["Rules"].strip() != wanted.rules.strip():
            return ConsulError(f"{server.url} does not have the policy as it shall be", 404)
    except ConsulError as error:
        return error
    return None
