"""Documents in Consul KV: read typed, written by check-and-set."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct, field

from outrider.errors import ConsulConflict, ConsulError
from outrider.registry.client import Consul, Reply

T = TypeVar("T")


class _Pair(Struct):
    Key: str
    ModifyIndex: int
    Value: str | None = None


class _Applied(Struct):
    Results: list[dict[str, _Pair]] | None = None


class Docs(Struct, Generic[T]):
    """Documents under a prefix: key after the prefix to (document, ModifyIndex). `problems`: what could not be read."""

    index: int
    docs: dict[str, tuple[T, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Change(Struct, frozen=True):
    """One write: `doc` None deletes. `expected_index`: the ModifyIndex it was read at, 0 if it must not exist."""

    key: str
    doc: Any
    expected_index: int


def decode_docs(reply: Reply, prefix: str, kind: type[T]) -> Docs[T]:
    """The documents of a recursive read. One that is malformed is named in `problems` and left out."""
    found: Docs[T] = Docs(reply.index)
    for pair in msgspec.json.decode(reply.body, type=list[_Pair]) if reply.body else []:
        try:
            doc = msgspec.json.decode(base64.b64decode(pair.Value or ""), type=kind)
        except (msgspec.MsgspecError, ValueError) as error:
            found.problems.append(f"{pair.Key}: {error}")
            continue
        found.docs[pair.Key.removeprefix(prefix)] = (doc, pair.ModifyIndex)
    return found


def list_docs(consul: Consul, prefix: str, kind: type[T]) -> Docs[T]:
    """All documents under `prefix`, read from the leader."""
    return decode_docs(consul.get(f"/v1/kv/{prefix}", params={"recurse": ""}), prefix, kind)


def get_doc(consul: Consul, key: str, kind: type[T]) -> tuple[T | None, int]:
    """One document and its ModifyIndex; (None, 0) if there is none. Raises ConsulError if it is malformed."""
    docs = decode_docs(consul.get(f"/v1/kv/{key}"), "", kind)
    if docs.problems:
        raise ConsulError(f"the document {docs.problems[0]}", hint="mend or delete it in the Consul UI, Key/Value")
    return docs.docs.get(key, (None, 0))


def put_docs(consul: Consul, changes: Sequence[Change]) -> dict[str, int]:
    """Write all by check-and-set, in transactions of as many as this Consul takes (64 on older ones).

    A transaction is all or nothing; more changes than one holds are several, in the order given. Returns the new
    ModifyIndex of each key that was not deleted. Raises ConsulConflict, naming the keys that somebody else changed.
    """
    indexes: dict[str, int] = {}
    for chunk in _chunks(changes, consul.capabilities.max_txn_ops):
        raw = consul.http.request("PUT", "/v1/txn", body=msgspec.json.encode([_operation(change) for change in chunk]))
        if raw.status == 409:
            errors = msgspec.json.decode(raw.body).get("Errors") or []
            keys = sorted({chunk[error["OpIndex"]].key for error in errors})
            raise ConsulConflict(
                f"changed by someone else meanwhile: {', '.join(keys)}",
                status=409,
                hint="nothing was written; run again",
            )
        if raw.status >= 400:
            text = raw.body.decode(errors="replace").strip()[:300]
            raise ConsulError(f"Consul refuses the transaction with {raw.status}: {text}", status=raw.status)
        for result in msgspec.json.decode(raw.body, type=_Applied).Results or ():
            if "KV" in result:
                indexes[result["KV"].Key] = result["KV"].ModifyIndex
    return indexes


def _operation(change: Change) -> dict[str, Any]:
    index = change.expected_index
    if change.doc is None:
        return {"KV": {"Verb": "delete-cas", "Key": change.key, "Index": index}}
    value = base64.b64encode(msgspec.json.encode(change.doc)).decode()
    return {"KV": {"Verb": "cas", "Key": change.key, "Index": index, "Value": value}}


def _chunks(changes: Sequence[Change], size: int) -> Iterator[Sequence[Change]]:
    for start in range(0, len(changes), size):
        yield changes[start : start + size]
