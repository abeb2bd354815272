"""Journals in Consul: read whole, added to by transactions that fail if anybody else was quicker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from outrider.errors import UnknownMigration
from outrider.migration.staged.records import Entry, Journal, Spec, chained
from outrider.registry.client import Consul, Reply
from outrider.registry.kv import Change, Guard, put_docs, raw_docs
from outrider.registry.layout import MIGRATIONS

SPEC = "/spec"
JOURNAL = "/journal/"


class Read(Struct, frozen=True):
    """All journals by id. `problems`: specs that cannot be read, and journals that are broken."""

    journals: Mapping[str, Journal]
    problems: tuple[str, ...] = ()


class Written(Struct, frozen=True):
    """The documents of one migration as they stand, the entries in order."""

    spec: bytes
    entries: tuple[bytes, ...]


class Reader:
    """Reads journals again and again: of those that are as they were nothing is decoded anew."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Written, Journal]] = {}

    def read(self, reply: Reply) -> Read:
        """The journals of a recursive read of `outrider/migrations/`."""
        journals: dict[str, Journal] = {}
        problems: list[str] = []
        known, self._known = self._known, {}
        for name, written in _written(reply).items():
            before = known.get(name)
            try:
                journal = before[1] if before and before[0] == written else chained(written.spec, written.entries)
            except msgspec.MsgspecError as error:
                problems.append(f"{MIGRATIONS}{name}{SPEC}: {error}")
                continue
            self._known[name] = written, journal
            journals[name] = journal
            problems += [f"{MIGRATIONS}{name}: {journal.broken}"] if journal.broken else []
        return Read(journals, tuple(problems))


def _written(reply: Reply) -> dict[str, Written]:
    """By id. Entries without a spec say nothing."""
    specs: dict[str, bytes] = {}
    entries: dict[str, list[bytes]] = {}
    for key, document in sorted(raw_docs(reply, MIGRATIONS).items()):
        name, _, number = key.partition(JOURNAL)
        if number:
            entries.setdefault(name, []).append(document)
        elif key.endswith(SPEC):
            specs[key.removesuffix(SPEC)] = document
    return {name: Written(spec, tuple(entries.get(name, ()))) for name, spec in specs.items()}


def read_all(consul: Consul) -> Read:
    """Every journal, from the leader. Raises ConsulError."""
    return Reader().read(consul.get(f"/v1/kv/{MIGRATIONS}", params={"recurse": ""}))


def read_one(consul: Consul, migration: str) -> Journal:
    """One journal, from the leader. Raises UnknownMigration, also if it cannot be read; ConsulError."""
    read = Reader().read(consul.get(f"/v1/kv/{MIGRATIONS}{migration}/", params={"recurse": ""}))
    if migration not in read.journals:
        why = "".join(f": {problem}" for problem in read.problems)
        raise UnknownMigration(f"no migration {migration} is known{why}", hint="`outrider migrate list` shows all")
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
