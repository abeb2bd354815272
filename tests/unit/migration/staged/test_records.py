"""A journal whose entries do not follow from each other is not followed."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from outrider.migration.staged.records import End, Entry, Journal, Spec, chained, next_entry

SPEC = Spec("m", "A", "singleton", End("A-1", "h1", "v1"), End("A-2", "h2", "v1"))


def journal(*whats: str) -> Journal:
    found = Journal(SPEC)
    for what in whats:
        entry = next_entry(found, what, 1.0, "h1")  # type: ignore[arg-type]
        found = Journal(SPEC, (*found.entries, entry))
    return found


def test_entries_follow_from_each_other() -> None:
    found = journal("planned", "begun", "ended")
    assert chained(SPEC, found.entries) == found
    assert [entry.seq for entry in found.entries] == [0, 1, 2]
    assert found.ended == found.entries[-1]
    assert journal("planned").ended is None


@pytest.mark.parametrize(
    ("damage", "broken"),
    [
        (lambda spec, entries: (replace(spec, by="else"), entries), "entry 0 does not follow"),
        (lambda spec, entries: (spec, (entries[0], replace(entries[1], said="else"), entries[2])), "entry 2 does not"),
        (lambda spec, entries: (spec, (entries[0], entries[2])), "entry 1 is missing"),
        (lambda spec, entries: (spec, entries[1:]), "entry 0 is missing"),
    ],
)
def test_what_was_changed_is_named(damage: object, broken: str) -> None:
    spec, entries = damage(SPEC, journal("planned", "begun", "ended").entries)  # type: ignore[operator]
    assert broken in chained(spec, entries).broken


def test_the_hash_covers_every_field() -> None:
    entry = journal("planned").entries[0]
    others = [replace(entry, **{name: value}) for name, value in _other(entry).items()]
    hashes = {next_entry(Journal(SPEC, (one,)), "begun", 2.0, "h1").previous for one in (entry, *others)}
    assert len(hashes) == 1 + len(others)


def _other(entry: Entry) -> dict[str, object]:
    return {
        "at": 2.0,
        "by": "x",
        "said": "x",
        "step": "x",
        "outcome": "finalised",
        "resolution": "keep",
        "evidence": {"x": 1},
        "what": "held",
        "previous": "x",
    }
