"""A journal whose entries do not follow from each other is not followed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from outrider.migration.staged.records import End, Entry, Journal, Spec, What, chained, digest, next_entry

SPEC = Spec("m", "A", "singleton", End("A-1", "h1", "v1"), End("A-2", "h2", "v1"))
Documents = tuple[bytes, list[bytes]]


def journal(*whats: What) -> Journal:
    found = Journal(SPEC)
    for what in whats:
        found = found.followed_by(next_entry(found, what, 1.0, "h1"))
    return found


def documents(found: Journal) -> Documents:
    """As they are written."""
    return msgspec.json.encode(found.spec), [msgspec.json.encode(entry) for entry in found.entries]


def test_entries_follow_from_each_other() -> None:
    found = journal("planned", "begun", "ended")
    assert chained(*documents(found)) == found
    assert [entry.seq for entry in found.entries] == [0, 1, 2]
    assert found.ended == found.entries[-1]
    assert journal("planned").ended is None


@pytest.mark.parametrize(
    ("damage", "broken"),
    [
        (lambda spec, said: (spec.replace(b"h1", b"h9"), said), "entry 0 does not follow"),
        (lambda spec, said: (spec, [said[0], said[1].replace(b"h1", b"h9"), said[2]]), "entry 2 does not follow"),
        (lambda spec, said: (spec, [said[0], said[1] + b" ", said[2]]), "entry 2 does not follow"),
        (lambda spec, said: (spec, [said[0], said[2]]), "entry 1 is missing"),
        (lambda spec, said: (spec, said[1:]), "entry 0 is missing"),
        (lambda spec, said: (spec, [said[0], said[1][:-1], said[2]]), "entry 1: "),
        (lambda spec, said: (spec, [said[0], b"", said[2]]), "entry 1: "),
    ],
)
def test_what_was_changed_is_named(damage: Callable[[bytes, list[bytes]], Documents], broken: str) -> None:
    found = chained(*damage(*documents(journal("planned", "begun", "ended"))))
    assert found.broken.startswith(broken)


def more(document: bytes, said: str) -> bytes:
    """With a field that this version does not know."""
    return msgspec.json.encode({**msgspec.json.decode(document), "later": said})


def test_what_another_version_wrote_follows_too_and_a_change_of_it_is_found() -> None:
    spec, (first, _) = documents(journal("planned", "begun"))
    spec = more(spec, "one")
    first = more(msgspec.json.encode(replace(msgspec.json.decode(first, type=Entry), previous=digest(spec))), "two")
    found = chained(spec, [first])
    assert found.broken == ""
    written = msgspec.json.encode(next_entry(found, "begun", 2.0, "h1"))
    assert chained(spec, [first, written]).broken == ""
    assert chained(spec.replace(b"one", b"1ne"), [first, written]).broken.startswith("entry 0 does not follow")
    assert chained(spec, [first.replace(b"two", b"2wo"), written]).broken.startswith("entry 1 does not follow")


def test_what_this_version_does_not_know_of_an_order_is_named_and_what_is_said_of_its_risk_is_none() -> None:
    spec, entries = documents(journal("planned"))
    assert chained(spec, entries).unknown == ()
    said = msgspec.json.decode(spec)
    said |= {"gently": True, "policy": {"shadow": 0.5}, "risk": {"points": 3, "band": "low", "mood": "good"}}
    said["target"]["rack"] = "r1"
    found = chained(msgspec.json.encode(said), [])
    assert found.unknown == ("gently", "target.rack", "policy.shadow")
    assert found.broken == ""
    assert found.followed_by(next_entry(found, "planned", 1.0, "h1")).unknown == found.unknown


def test_the_hash_covers_every_field() -> None:
    entry = journal("planned").entries[0]
    others = [replace(entry, **{name: value}) for name, value in _other(entry).items()]
    hashes = {next_entry(Journal(SPEC).followed_by(one), "begun", 2.0, "h1").previous for one in (entry, *others)}
    assert len(hashes) == 1 + len(others)


def _other(entry: Entry) -> dict[str, Any]:
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
