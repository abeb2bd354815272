"""What differs between versions of Consul, in one table. Ask the version once; branch on a capability, never on it."""

from __future__ import annotations

import re

from msgspec import Struct

Version = tuple[int, int, int]


class Capabilities(Struct, frozen=True):
    """What a version of Consul can do or how it says it.

    unknown_check_status: HTTP status for an update of a check that is not registered
    streaming: health queries that block are fed by followers unless they carry `near`
    tls_stanza: the configuration has `tls {}` instead of the flat verify_* keys
    initial_management: the ACL token keys have their new names
    transfer_leader: raft leadership can be handed over
    max_txn_ops: operations in one transaction
    """

    unknown_check_status: int
    streaming: bool
    tls_stanza: bool
    initial_management: bool
    transfer_leader: bool
    max_txn_ops: int


def capabilities_of(version: Version) -> Capabilities:
    """The row of the table for `version`."""
    return Capabilities(
        unknown_check_status=404 if version >= (1, 12, 0) else 500,
        streaming=version >= (1, 10, 0),
        tls_stanza=version >= (1, 12, 0),
        initial_management=version >= (1, 11, 0),
        transfer_leader=version >= (1, 15, 0),
        max_txn_ops=128 if version >= (1, 13, 0) else 64,
    )


def parse_version(text: str) -> Version:
    """`1.8.7+dfsg1` -> (1, 8, 7); what is not a number counts as 0."""
    numbers = [int(part) for part in re.findall(r"\d+", text.split("+")[0].split("-")[0])[:3]]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major, minor, patch
