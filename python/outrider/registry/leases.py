"""Leases in Consul: `outrider/leases/<agent>`, a key locked by the session of the host whose instance holds it.

The key is never deleted: its value carries the epoch, which only grows.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from outrider.errors import ConsulConflict, ConsulError
from outrider.registry.client import Consul, Reply, decode
from outrider.registry.kv import TXN_OPS
from outrider.registry.layout import PLACEMENT
from outrider.registry.line import Raw
from outrider.registry.transport import error_of

LEASES = "outrider/leases/"
# An invalidated session's locks cannot be had for this long: what remains of the old holder's lease fits into it.
LOCK_DELAY_S = 2.0
# The backstop for a shim that is gone for good while its host lives: Consul frees its locks after twice this.
SESSION_TTL_S = 15.0


class Member(Struct, frozen=True):
    """An instance that may hold the lease."""

    instance: str
    host: str


class LeaseDoc(Struct, frozen=True, omit_defaults=True):
    """The value of the key.

    sole: no other host could run it when it was taken, so that its holder needs no Consul to go on
    state: released means that the last holder gave it up itself, so that nobody need wait for its end
    since: Unix seconds of the last change of holder; reason: why it changed
    heir: whom it was released for
    """

    agent: str
    epoch: int = 0
    holder: str = ""
    host: str = ""
    members: tuple[Member, ...] = ()
    sole: bool = False
    state: Literal["held", "released"] = "released"
    since: float = 0.0
    reason: str = ""
    heir: Member | None = None

    def has(self, instance: str, host: str) -> bool:
        """Whether that instance on that host is a member."""
        return Member(instance, host) in self.members


class Lease(Struct, frozen=True):
    """A lease as last read. `session` is empty while nobody holds the lock; `index` is the key's ModifyIndex."""

    doc: LeaseDoc
    index: int
    session: str = ""


class _Pair(Struct):
    Key: str
    ModifyIndex: int
    Value: str | None = None
    Session: str = ""


class _Failure(Struct):
    OpIndex: int
    What: str = ""


class _Answer(Struct):
    Results: list[dict[str, _Pair]] | None = None
    Errors: list[_Failure] | None = None


class Confirmation(Struct, frozen=True):
    """What a consistent read says: the agents whose locks our session holds, and why not for the rest."""

    held: frozenset[str]
    lost: dict[str, str] = field(default_factory=dict)


def decode_leases(reply: Reply) -> tuple[dict[str, Lease], list[str]]:
    """The leases of a recursive read by agent, and what could not be read."""
    leases, problems = {}, []
    for pair in decode(reply.body, list[_Pair]) if reply.body else []:
        try:
            doc = msgspec.json.decode(base64.b64decode(pair.Value or ""), type=LeaseDoc)
        except (msgspec.MsgspecError, ValueError) as error:
            problems.append(f"{pair.Key}: {error}")
            continue
        leases[pair.Key.removeprefix(LEASES)] = Lease(doc, pair.ModifyIndex, pair.Session)
    return leases, problems


def create_session(consul: Consul, host: str) -> str:
    """The session of a host's shim. It ends with the host (serfHealth), and its locks are then released."""
    line = consul.http.line()
    node = "" if line.address == consul.address else host  # another agent would take it for one of its own host
    try:
        return consul.create_session(
            f"outrider on {host}",
            ttl_s=SESSION_TTL_S,
            lock_delay_s=LOCK_DELAY_S,
            node=node,
            timeout_s=1.0,
            line=line,
        )
    finally:
        line.close()


def renew_session(consul: Consul, session: str) -> None:
    """Keep the session; no raft write. Raises ConsulError with status 404 when it has ended."""
    consul.put(f"/v1/session/renew/{session}", timeout_s=2.0)


def is_placed(consul: Consul, agent: str) -> bool:
    """Whether Consul has the agent's placement. Raises ConsulError."""
    return consul.get(f"/v1/kv/{PLACEMENT}{agent}", params={"consistent": ""}, timeout_s=1.0).status != 404


def acquire(
    consul: Consul, doc: LeaseDoc, index: int, session: str, timeout_s: float = 1.0, *, placement_index: int = 0
) -> int:
    """Take the lock and write `doc`, if the key is still as it was read at `index` (0: not there).

    placement_index: with it, only while the agent's placement is still as it was read there
    Returns the new index. Raises ConsulConflict when somebody was quicker or the lock delay is not over.
    """
    key = LEASES + doc.agent
    same = {"Verb": "check-index", "Key": key, "Index": index} if index else {"Verb": "check-not-exists", "Key": key}
    return _write(consul, doc, [same, *_placed(doc, placement_index)], "lock", session, timeout_s)


def amend(consul: Consul, doc: LeaseDoc, index: int, session: str, timeout_s: float = 1.0) -> int:
    """Write `doc` while holding the lock. Raises ConsulConflict if it is not ours, or not as it was read at `index`.

    Without the latter a write that hangs could be done later, over a lease that was given up and taken again.
    """
    same = {"Verb": "check-index", "Key": LEASES + doc.agent, "Index": index}
    return _write(consul, doc, [_checked(doc.agent, session), same], "set", "", timeout_s)


def release(consul: Consul, doc: LeaseDoc, session: str, timeout_s: float = 0.5, *, placement_index: int = 0) -> int:
    """Write `doc` and give the lock up: no lock delay follows. Raises ConsulConflict if it was not ours.

    placement_index: with it, only while the agent's placement is still as it was read there
    """
    checks = [_checked(doc.agent, session), *_placed(doc, placement_index)]
    return _write(consul, doc, checks, "unlock", session, timeout_s)


def _placed(doc: LeaseDoc, index: int) -> list[dict[str, Any]]:
    return [{"Verb": "check-index", "Key": PLACEMENT + doc.agent, "Index": index}] if index else []


def confirm(consul: Consul, agents: Iterable[str], session: str, *, timeout_s: float) -> Confirmation:
    """Ask the leader, once it made sure that it still leads, which of these locks our session holds.

    A read in default mode is no proof: a leader that was cut off answers those for half a second.
    """
    names = sorted(agents)
    held: set[str] = set()
    lost: dict[str, str] = {}
    for first in range(0, len(names), TXN_OPS):
        chunk = names[first : first + TXN_OPS]
        body = msgspec.json.encode([{"KV": _checked(agent, session)} for agent in chunk])
        raw = consul.http.request("PUT", "/v1/txn", params={"consistent": ""}, body=body, timeout_s=timeout_s)
        if raw.status not in (200, 409):
            raise error_of(raw, "a question about leases")
        failures = {chunk[error.OpIndex]: error.What for error in decode(raw.body, _Answer).Errors or ()}
        lost |= failures
        held |= set(chunk) - failures.keys()
    return Confirmation(frozenset(held), lost)


def _checked(agent: str, session: str) -> dict[str, Any]:
    return {"Verb": "check-session", "Key": LEASES + agent, "Session": session}


def _write(
    consul: Consul, doc: LeaseDoc, checks: Sequence[Mapping[str, Any]], verb: str, session: str, timeout_s: float
) -> int:
    value = base64.b64encode(msgspec.json.encode(doc)).decode()
    write = {"Verb": verb, "Key": LEASES + doc.agent, "Value": value} | ({"Session": session} if session else {})
    body = msgspec.json.encode([{"KV": operation} for operation in (*checks, write)])
    raw = consul.http.request("PUT", "/v1/txn", body=body, timeout_s=timeout_s)
    if raw.status >= 300:
        raise _refusal(raw, doc.agent)
    results = decode(raw.body, _Answer).Results or []
    return max((pair.ModifyIndex for result in results for pair in result.values()), default=0)


def _refusal(raw: Raw, agent: str) -> ConsulError:
    if raw.status != 409:
        return error_of(raw, f"a write to the lease of {agent}")
    said = "; ".join(error.What for error in decode(raw.body, _Answer).Errors or ())
    if "Permission denied" in said:
        return error_of(Raw(403, raw.headers, said.encode()), f"a write to the lease of {agent}")
    return ConsulConflict(f"the lease of {agent}: {said}", status=409)
