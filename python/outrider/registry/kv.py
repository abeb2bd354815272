"""Documents in Consul KV: read typed, written by check-and-set."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct, field

from outrider.errors import ConsulConflict, ConsulDenied, ConsulError
from outrider.registry.client import Consul, Reply, decode
from outrider.registry.layout import PUBLISHED
from outrider.registry.line import Raw
from outrider.registry.transport import error_of

T = TypeVar("T")
# What one transaction takes in every version, and its body by default (512 KiB), less some for what surrounds it.
TXN_OPS = 64
TXN_BYTES = 500 * 1024


class _Pair(Struct):
    Key: str
    ModifyIndex: int
    Value: str | None = None


class _Applied(Struct):
    Results: list[dict[str, _Pair]] | None = None


class _Error(Struct):
    OpIndex: int
    What: str = ""


class _Refused(Struct):
    Errors: list[_Error] | None = None


class Docs(Struct, Generic[T]):
    """Documents under a prefix: key after the prefix to (document, ModifyIndex). `problems`: what could not be read."""

    index: int
    docs: dict[str, tuple[T, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Change(Struct, frozen=True):
    """One write: `doc` None deletes.

    expected_index: the ModifyIndex it was read at, 0 if it must not exist, None if it does not matter what is there
    """

    key: str
    doc: Any
    expected_index: int | None


class Guard(Struct, frozen=True):
    """What must be true for writes to be done: `session` holds the lock `key`; or, without one, `key` is at `index`."""

    key: str
    index: int = 0
    session: str = ""


def decode_docs(reply: Reply, prefix: str, kind: type[T]) -> Docs[T]:
    """The documents of a recursive read. One that is malformed is named in `problems` and left out.

    The number of the last publication, which stands among the placements, is none.
    Raises ConsulError if the answer as a whole is not Consul's.
    """
    found: Docs[T] = Docs(reply.index)
    for pair in decode(reply.body, list[_Pair]) if reply.body else []:
        name = pair.Key.removeprefix(prefix)
        if prefix and pair.Key == PUBLISHED:
            continue
        try:
            doc = msgspec.json.decode(base64.b64decode(pair.Value or ""), type=kind)
        except (msgspec.MsgspecError, ValueError) as error:
            found.problems.append(f"{pair.Key}: {error}")
            continue
        found.docs[name] = (doc, pair.ModifyIndex)
    return found


def raw_docs(reply: Reply, prefix: str) -> dict[str, bytes]:
    """The documents of a recursive read as they stand: key after the prefix to bytes."""
    pairs = decode(reply.body, list[_Pair]) if reply.body else []
    return {pair.Key.removeprefix(prefix): base64.b64decode(pair.Value or "") for pair in pairs}


def list_docs(consul: Consul, prefix: str, kind: type[T]) -> Docs[T]:
    """All documents under `prefix`, read from the leader."""
    return decode_docs(consul.get(f"/v1/kv/{prefix}", params={"recurse": ""}), prefix, kind)


def get_doc(consul: Consul, key: str, kind: type[T]) -> tuple[T | None, int]:
    """One document and its ModifyIndex; (None, 0) if there is none. Raises ConsulError if it is malformed."""
    docs = decode_docs(consul.get(f"/v1/kv/{key}"), "", kind)
    if docs.problems:
        raise ConsulError(f"the document {docs.problems[0]}", hint="mend or delete it in the Consul UI, Key/Value")
    return docs.docs.get(key, (None, 0))


def put_docs(consul: Consul, changes: Sequence[Change], guards: Sequence[Guard] = ()) -> dict[str, int]:
    """Write all by check-and-set, while every guard holds. Returns the new ModifyIndex of each key not deleted.

    A transaction is all or nothing. What is too much for one (64 operations, or half a MiB) goes into several, in the
    order given, so put first what the rest refers to. Raises ConsulConflict naming the keys that somebody else changed.
    """
    indexes: dict[str, int] = {}
    written = 0
    keys = {change.key for change in changes}
    checks = [(guard.key, _check(guard)) for guard in guards]
    for chunk in _chunks(changes, len(guards)):
        for result in _transact(consul, [*checks, *chunk], written).Results or ():
            if "KV" in result and result["KV"].Key in keys:
                indexes[result["KV"].Key] = result["KV"].ModifyIndex
        written += len(chunk)
    return indexes


def delete_tree(consul: Consul, prefix: str, guards: Sequence[Guard] = ()) -> None:
    """Delete every key under `prefix` at once, while every guard holds. Raises ConsulConflict."""
    operation = msgspec.json.encode({"KV": {"Verb": "delete-tree", "Key": prefix}})
    _transact(consul, [*((guard.key, _check(guard)) for guard in guards), (prefix, operation)], 0)


def _transact(consul: Consul, operations: Sequence[tuple[str, bytes]], written: int) -> _Applied:
    body = b"[" + b",".join(operation for _, operation in operations) + b"]"
    raw = consul.http.request("PUT", "/v1/txn", body=body)
    if raw.status >= 300:
        raise _refusal(raw, [key for key, _ in operations], written)
    return decode(raw.body, _Applied)


def _refusal(raw: Raw, keys: list[str], written: int) -> ConsulError:
    hint = f"{written} changes before it are written; run again" if written else "nothing was written; run again"
    if raw.status != 409:
        return error_of(raw, f"a transaction on {keys[0]} and {len(keys) - 1} more ({written} changes written before)")
    errors = decode(raw.body, _Refused).Errors or []
    lost = sorted({keys[error.OpIndex] for error in errors})
    if any("Permission denied" in error.What for error in errors):
        # A transaction says 409 for this too, and the lost check-and-set would be tried again for ever.
        return ConsulDenied(f"the token may not write {', '.join(lost)}", status=409, hint="the token lacks a right")
    return ConsulConflict(f"changed by someone else meanwhile: {', '.join(lost)}", status=409, hint=hint)


def _operation(change: Change) -> bytes:
    delete, write = ("delete", "set") if change.expected_index is None else ("delete-cas", "cas")
    operation: dict[str, Any] = {"Verb": delete, "Key": change.key, "Index": change.expected_index or 0}
    if change.doc is not None:
        value = base64.b64encode(msgspec.json.encode(change.doc)).decode()
        operation |= {"Verb": write, "Value": value}
    return msgspec.json.encode({"KV": operation})


def _check(guard: Guard) -> bytes:
    # Both want the right to read the key; that a key is not there can only be checked with the right to write it.
    what = {"Verb": "check-session", "Session": guard.session} if guard.session else {"Verb": "check-index"}
    return msgspec.json.encode({"KV": {**what, "Key": guard.key, "Index": guard.index}})


def _chunks(changes: Sequence[Change], guards: int) -> Iterator[list[tuple[str, bytes]]]:
    chunk: list[tuple[str, bytes]] = []
    size = 0
    for change in changes:
        operation = _operation(change)
        if chunk and (len(chunk) + guards == TXN_OPS or size + len(operation) > TXN_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((change.key, operation))
        size += len(operation) + 1
    if chunk:
        yield chunk
