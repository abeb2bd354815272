"""Journals are read whole, and only what changed is decoded anew."""

from __future__ import annotations

import base64

import msgspec

from outrider.migration.staged.journal import Reader
from outrider.migration.staged.records import End, Journal, Spec, next_entry
from outrider.registry.client import Reply


def journal(migration: str, length: int) -> Journal:
    found = Journal(Spec(migration, "A", "singleton", End("A-1", "h1", "v1"), End("A-2", "h2", "v1")))
    for number in range(length):
        found = found.followed_by(next_entry(found, "begun", float(number), "h1", step="start"))
    return found


def documents(*journals: Journal) -> dict[str, bytes]:
    found = {}
    for each in journals:
        found[f"outrider/migrations/{each.id}/spec"] = msgspec.json.encode(each.spec)
        for entry in each.entries:
            found[f"outrider/migrations/{each.id}/journal/{entry.seq:05}"] = msgspec.json.encode(entry)
    return found


def reply(found: dict[str, bytes]) -> Reply:
    """As Consul answers, in the order of its keys; the index says nothing, as after a restore."""
    pairs = [{"Key": key, "ModifyIndex": 1, "Value": base64.b64encode(found[key]).decode()} for key in sorted(found)]
    return Reply(1, msgspec.json.encode(pairs), True, 0, 200)


def test_of_many_journals_only_the_one_that_changed_is_decoded() -> None:
    reader = Reader()
    before = reader.read(reply(documents(journal("m1", 12), journal("m2", 1), journal("m3", 3)))).journals
    after = reader.read(reply(documents(journal("m1", 12), journal("m2", 2)))).journals
    assert after == {"m1": before["m1"], "m2": journal("m2", 2)}
    assert after["m1"] is before["m1"]
    assert after["m2"] is not before["m2"]


def test_a_changed_byte_is_found_where_all_was_well_before_and_mended_again() -> None:
    reader, well = Reader(), documents(journal("m1", 3))
    key = "outrider/migrations/m1/journal/00001"
    damaged = well | {key: well[key].replace(b"start", b"stars")}
    assert reader.read(reply(well)).problems == ()
    assert reader.read(reply(damaged)).problems == (
        "outrider/migrations/m1: entry 2 does not follow from the one before it",
    )
    assert reader.read(reply(well)).problems == ()


def test_a_spec_that_cannot_be_read_is_named_and_entries_without_one_are_nothing() -> None:
    found = documents(journal("m1", 2), journal("m2", 2))
    found["outrider/migrations/m1/spec"] = b"{}"
    del found["outrider/migrations/m2/spec"]
    read = Reader().read(reply(found))
    assert read.journals == {}
    assert len(read.problems) == 1
    assert read.problems[0].startswith("outrider/migrations/m1/spec: ")
