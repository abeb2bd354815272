"""What differs between versions of Consul, in one table. Ask the version once; branch on a capability, never on it."""

from __future__ import annotations

import re

from msgspec import Struct

Version = tuple[int, int, int]


class AclNames(Struct, frozen=True):
    """Keys of `acl.tokens` in a Consul agent's configuration. `initial_management`: the first token, servers only."""

    initial_management: str
    agent_recovery: str


class Capabilities(Struct, frozen=True):
    """What a version of Consul can do, or how it says it.

    unknown_check_status: HTTP status for an update of a check that is not registered
    streaming: health queries that block are fed by followers, 75 ms later
    near_disables_streaming: such a query with `near` is answered by the leader
    token_param: a token in the URL is still taken; we send none there
    acl: names of the ACL tokens in the configuration
    tls_stanza: the configuration has `tls {}` instead of the flat verify_* keys
    grpc_tls_port: gRPC with TLS has a port of its own
    transfer_leader: raft leadership can be handed over
    unknown_fields: a JSON field that this version does not know is ignored instead of refused with 400
    max_txn_ops: operations that fit into one transaction of every version
    """

    unknown_check_status: int
    streaming: bool
    near_disables_streaming: bool
    token_param: bool
    acl: AclNames
    tls_stanza: bool
    grpc_tls_port: bool
    transfer_leader: bool
    unknown_fields: bool = False
    max_txn_ops: int = 64

    @property
    def initial_management(self) -> bool:
        """The ACL tokens have their new names."""
        return self.acl.initial_management == "initial_management"


def capabilities_of(version: Version) -> Capabilities:
    """The row of the table for `version`."""
    new_names = version >= (1, 11, 0)
    return Capabilities(
        unknown_check_status=404 if version >= (1, 11, 0) else 500,
        streaming=version >= (1, 10, 0),
        near_disables_streaming=version >= (1, 10, 0),
        token_param=version < (1, 17, 0),
        acl=AclNames("initial_management", "agent_recovery") if new_names else AclNames("master", "agent_master"),
        tls_stanza=version >= (1, 12, 0),
        grpc_tls_port=version >= (1, 14, 0),
        transfer_leader=version >= (1, 15, 0),
    )


def parse_version(text: str) -> Version:
    """`1.8.7+dfsg1` -> (1, 8, 7); what is missing counts as 0. Raises ValueError if there is no number."""
    found = re.match(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?", text.strip())
    if not found:
        raise ValueError(f"no version: {text!r}")
    major, minor, patch = (int(part or 0) for part in found.groups())
    return major, minor, patch
