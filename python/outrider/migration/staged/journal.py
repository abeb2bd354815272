"""Journals in Consul: read whole, added to by transactions that fail if anybody else was quicker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from outrider.errors import UnknownMigration
from outrider.migration.staged.records import Entry, Journal, Spec, chained
from outrider.registry.client import Consul, Reply
from outrider.registry.kv import Change, Guard, decode_docs, put_docs
from outrider.registry.layout import MIGRATIONS

SPEC = "/spec"
JOURNAL = "/journal/"


class Read(Struct, frozen=True):
    """All journals by id. `problems`: documents that could not be read, and chains that are broken."""

    journals: Mapping[str, Journal]
    problems: tuple[str, ...] = ()


def decode(reply: Reply) -> Read:
    """The journals of a recursive read of `outrider/migrations/`."""
    found = decode_docs(reply, MIGRATIONS, msgspec.Raw)
    problems = list(found.problems)
    specs: dict[str, Spec] = {}
    entries: dict[str, list[Entry]] = {}
    damaged: dict[str, str] = {}
    for key, (raw, _) in sorted(found.docs.items()):
        try:
            if key.endswith(SPEC):
                specs[key.removesuffix(SPEC)] = msgspec.json.decode(raw, type=Spec)
            elif JOURNAL in key:
                entries.setdefault(key.partition(JOURNAL)[0], []).append(msgspec.json.decode(raw, type=Entry))
        except msgspec.MsgspecError as error:
            problems.append(f"{MIGRATIONS}{key}: {error}")
    for problem in problems:
        name, _, entry = problem.removeprefix(MIGRATIONS).partition(JOURNAL)
        damaged.setdefault(name, f"entry {entry}")
    journals = {
        name: chained(spec, tuple(entries.get(name, ())), damaged.get(name, "")) for name, spec in specs.items()
    }
    problems += [f"{MIGRATIONS}{name}: {journal.broken}" for name, journal in journals.items() if journal.broken]
    return Read(journals, tuple(problems))


def read_all(consul: Consul) -> Read:
    """Every journal, from the leader. Raises ConsulError."""
    return decode(consul.get(f"/v1/kv/{MIGRATIONS}", params={"recurse": ""}))


def read_one(consul: Consul, migration: str) -> Journal:
    """One journal, from the leader. Raises UnknownMigration, ConsulError."""
    read = decode(consul.get(f"/v1/kv/{MIGRATIONS}{migration}/", params={"recurse": ""}))
    if migration not in read.journals:
        raise UnknownMigration(f"no migration {migration} is known", hint="`outrider migrate list` shows all")
    return read.journals[migration]


def spec_change(spec: Spec) -> Change:
    """The write of a new migration's spec."""
    return Change(f"{MIGRATIONS}{spec.id}{SPEC}", spec, 0)


def entry_change(migration: str, entry: Entry) -> Change:
    """The write of an entry: it fails if there is one of that number."""
    return Change(f"{MIGRATIONS}{migration}{JOURNAL}{entry.seq:05}", entry, 0)


def append(
    consul: Consul, migration: str, entry: Entry, more: Sequence[Change] = (), guards: Sequence[Guard] = ()
) -> None:
    """Add an entry and write `more` with it, all or nothing. Raises ConsulConflict if somebody was quicker."""
    put_docs(consul, [entry_change(migration, entry), *more], guards)
